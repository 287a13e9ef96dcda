"""Which variant of a bundle on which engine: what "auto", a precision and a name mean on this machine."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.util import find_spec

from .backend import Backend
from .bundle import Bundle, Variant
from .errors import BundleError, UsageError
from .model_file import ModelFile
from .onnxruntime_backend import OnnxRuntimeBackend
from .openvino_backend import OpenVinoBackend

BACKENDS: tuple[type[Backend], ...] = (OnnxRuntimeBackend, OpenVinoBackend)
AUTO = "auto"

Pair = tuple[Variant, type[Backend]]


def choose(bundle: Bundle, variant: str, backend: str) -> list[Pair]:
    """The variants and engines that `variant` and `backend` mean for a bundle, by the files in it, the best one first.

    Of "auto", the engine that is fastest on this kind of machine comes first; engines on which a variant missed its
    gates at export come after all others, and those that are not installed last. Formats come in the order that suits
    an engine. Raises UsageError and BundleError where there is none.
    """
    engines = _find_engines(backend)
    wanted = bundle.find(variant)
    pairs = [
        (each, engine)
        for engine in engines
        for kind in engine.formats
        for each in wanted
        if each.format == kind and bundle.holds(each)
    ]
    if pairs:
        return sorted(pairs, key=_rank) if backend == AUTO else pairs
    names = " or ".join(each.name for each in wanted)
    if not any(bundle.holds(each) for each in wanted):
        here = ", ".join(each.name for each in bundle.variants.values() if bundle.holds(each)) or "none"
        raise BundleError(
            f"{bundle.path}: the files of {names} are not here; name another as the variant (here: {here})"
        )
    raise _unable(backend, names)


def choose_engines(model: ModelFile, backend: str) -> list[type[Backend]]:
    """The engines that `backend` means for a model file without its bundle, the best one first.

    Such a file does not say how closely engines agree on it, so that "auto" goes by BACKENDS alone, on every machine.
    """
    engines = [each for each in _find_engines(backend) if model.bytes.format in each.formats]
    if not engines:
        raise _unable(backend, model.name)
    return sorted(engines, key=lambda each: not _is_installed(each))


def find_pairs(bundle: Bundle, variant: str | None = None) -> list[tuple[str, str]]:
    """Variants that are here, or those meant by `variant`, with each engine that takes their format, by name.

    Raises BundleError if none is here.
    """
    wanted = bundle.choose(variant)
    if not wanted:
        raise BundleError(f"{bundle.path}: holds the files of none of its variants; copy them from the original bundle")
    return [(each.name, engine.name) for each in wanted for engine in BACKENDS if each.format in engine.formats]


def _rank(pair: Pair) -> tuple[bool, bool, bool]:
    """What "auto" sorts by, the best first."""
    variant, engine = pair
    return not _is_installed(engine), not variant.suits(engine.name), platform.machine() not in engine.fast_on


def _find_engines(backend: str) -> Sequence[type[Backend]]:
    """The engines that "auto" or a name means. Raises UsageError if there is none."""
    engines = [each for each in BACKENDS if backend in (AUTO, each.name)]
    if not engines:
        names = ", ".join(each.name for each in BACKENDS)
        raise UsageError(f"{{backend}}: no such engine; there are {names}", backend=backend)
    return engines


def _is_installed(engine: type[Backend]) -> bool:
    try:
        return find_spec(engine.module) is not None
    except ValueError:  # sys.modules holds something that is no module of that name
        return False


def _unable(backend: str, names: str) -> UsageError:
    hint = "" if backend == AUTO else "; auto takes an engine that does"
    return UsageError(f"{{backend}} does not run {names}{hint}", backend=backend)
