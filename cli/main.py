"""The command's entry: its sub-commands, and how errors reach the person who typed it."""

from __future__ import annotations

import ctypes
import difflib
import errno
import io
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import click
from PIL import Image

from ..runtime.errors import ByolEdgeError, brief, in_python
from ..runtime.text import printable
from .bench import bench
from .compare import compare
from .decode import decode
from .demo import demo
from .embed import embed
from .export import export
from .inspect import inspect
from .interrupts import interruptible
from .nearest import nearest
from .output import reporting
from .report import report
from .self_test import self_test
from .train import train
from .validate import validate

COMMANDS = (demo, train, export, validate, compare, decode, report, bench, embed, nearest, self_test, inspect)


class EdgeGroup(click.Group):
    """Commands in the order of the pipeline, one line per error, and the nearest name for a mistyped command."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], self.commands, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(self.commands)}."
            ctx.fail(f"No such command {args[0]!r}. {hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with interruptible(), reporting():
                result = super().invoke(ctx)
                if sys.stdout:
                    sys.stdout.flush()  # a full disk is told here, not as Python ends
                return result
        except ByolEdgeError as error:
            if ctx.params.get("debug"):
                raise
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            _say(error.describe(partial(_as_flag, command)))
            ctx.exit(error.exit_code)
        except OSError as error:
            if ctx.params.get("debug") or error.errno == errno.EPIPE:
                raise
            _say(_describe(error))
            ctx.exit(1)
        except MemoryError as error:
            if ctx.params.get("debug"):
                raise
            _say(f"out of memory ({brief(error)})")
            ctx.exit(1)
        except KeyboardInterrupt:
            hint = "; the same command with --resume goes on" if ctx.invoked_subcommand in ("train", "embed") else ""
            _say(f"stopped{hint}")
            ctx.exit(130)


def _say(message: object) -> None:
    """One line on standard error, whatever the message holds."""
    click.echo(f"byol-edge: {printable(' '.join(str(message).split()))}", err=True)


def _as_flag(command: click.Command | None, name: str, value: object) -> str:
    """An argument of the library's as it is typed for a command, or for the first other command that has it."""
    spelled = (_spell(each.params, name, value) for each in (command, *COMMANDS) if each)
    return next(filter(None, spelled), in_python(name, value))


def _spell(parameters: Sequence[click.Parameter], name: str, value: object) -> str:
    """An argument as it is typed for a command with these parameters; empty if it has none of that name."""
    for parameter in parameters:
        flag = max(parameter.opts, key=len)
        if parameter.name == name and isinstance(parameter, click.Argument):
            return str(value)
        if parameter.name == name:
            typed = ",".join(map(str, value)) if isinstance(value, tuple) else value
            if value is False and parameter.secondary_opts:
                return parameter.secondary_opts[0]
            return flag if value is True else f"{flag} {typed}"
        if parameter.name == f"no_{name}" and value is False:
            return flag
    return ""


def _describe(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    advice = "; the disk is full, and nothing half-written was left" if full else ""
    return f"{error.filename or 'writing failed'}: {error.strerror or error}{advice}"


@click.group(cls=EdgeGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
@click.version_option(package_name="byol-edge")
def cli(debug: bool) -> None:
    """From a folder of unlabeled images to a small, verified embedding model on a CPU or an edge device.

    Start with `byol-edge demo`. Then, with your own images: train, export, validate, embed.
    """


for command in COMMANDS:
    cli.add_command(command)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a dash that a terminal cannot show is no reason to fail
    silence_libraries()
    try:
        sys.exit(cli())
    except OSError as error:  # what could not be written was a help text, or an error
        with suppress(OSError):
            _say(_describe(error))
        sys.exit(1)
    finally:
        _drop_unwritten()


def _drop_unwritten() -> None:
    """What could not be written is not tried again as Python ends, which would make a code of 120 of any other."""
    try:
        if sys.stdout:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def silence_libraries() -> None:
    """Keeps what libraries print for developers off standard error, where a line is for the person who typed.

    What matters of it reaches that person as an error, or as this project's own log. `-W` and PYTHONWARNINGS bring
    warnings back.
    """
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    logging.getLogger().addHandler(logging.NullHandler())  # without any, Python prints what is logged
    # Pillow reports what libtiff finds in a broken file, but leaves its printing on. Pillow's own module finds libtiff.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(None)


if __name__ == "__main__":
    main()
