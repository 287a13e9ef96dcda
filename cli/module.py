"""A network of the user's own, named on the command line as package.module:callable."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..runtime.errors import ByolEdgeError, UsageError, brief

if TYPE_CHECKING:
    from torch import nn


def module_option(text: str) -> Callable[..., Any]:
    """The option --module, with its help."""
    return click.option("--module", metavar="PACKAGE.MODULE:CALLABLE", help=text)


def make_module(name: str, checkpoint: str | None) -> nn.Module:
    """What the callable `name` returns, called with the path of a checkpoint, or with nothing where there is none.

    A module that lies there ready is taken as it is. Runs the code that it names, from the current folder or wherever
    else Python finds it. Raises UsageError where it is no such callable, and ByolEdgeError where it raises.
    """
    from torch import nn

    make = _find(name)
    if isinstance(make, nn.Module):
        if checkpoint is not None:
            raise UsageError(f"--module {name} is a module already, which takes no checkpoint; leave out {checkpoint}")
        return make
    arguments = () if checkpoint is None else (checkpoint,)
    called = f"--module {name} raised {{}}, called with {repr(checkpoint) if arguments else 'nothing'}"
    made = _run(partial(make, *arguments), called)
    if not isinstance(made, nn.Module):
        raise UsageError(f"--module {name} returned a {type(made).__name__}, not a torch.nn.Module")
    return made


def _find(name: str) -> Callable[..., object]:
    module, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *attribute.split("."))) or module.endswith(".py"):
        raise UsageError(f"--module {name}: has to be package.module:callable, such as nets:make of the file nets.py")
    here = str(Path.cwd())
    if here not in sys.path:  # as Python itself does for `python -m`
        sys.path.insert(0, here)
    try:
        found = _run(partial(import_module, module), f"importing {module} (--module) raised {{}}")
    except ByolEdgeError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and f"{module}.".startswith(f"{cause.name}."):
            raise UsageError(f"--module {name}: no module {cause.name} in {here}, nor installed") from error
        raise
    try:
        make = attrgetter(attribute)(found)
    except AttributeError as error:
        raise UsageError(f"--module {name}: {module} has no {attribute} ({getattr(found, '__file__', '')})") from error
    if not callable(make):
        raise UsageError(f"--module {name}: {attribute} is a {type(make).__name__}, not a callable")
    return make


def _run(code: Callable[[], Any], message: str) -> Any:
    """Calls the user's code. Raises ByolEdgeError with `message`, `{}` in it being what the code raised."""
    try:
        return code()
    except (Exception, SystemExit) as error:
        raise ByolEdgeError(message.replace("{}", f"{type(error).__name__}: {brief(error)}")) from error
