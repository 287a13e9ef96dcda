"""From a folder of unlabeled images to a small, verified embedding model on a CPU or an edge device.

    from byol_edge import pretrain, export_bundle, validate, Encoder

    pretrain("photos/train", "runs/photos")
    export_bundle("runs/photos", "bundles/photos", ExportConfig(int8=True))
    validate("bundles/photos", "photos/test")
    Encoder("bundles/photos").embed("mug.jpg")

What is named here is imported when it is first used, so that a device needs no PyTorch. What is done is reported by
`logging`: `logging.basicConfig(level=logging.INFO)` shows it.
"""

from __future__ import annotations

import os
from importlib import import_module

# Where this is not set before its import, ONNX Runtime (1.29 or newer) reports to its maker how it is used.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# As typing's, which takes longest to import: until then, Ctrl-C gives a traceback (__main__ puts an end to that).
TYPE_CHECKING = False

if TYPE_CHECKING:
    from .decoding.decode import decode
    from .decoding.results import Decoding
    from .decoding.stored import decode_vectors
    from .evaluate.compare import compare_encoders
    from .evaluate.comparison import Comparison
    from .evaluate.validate import Limits, Validation, validate
    from .export.bundling import Export, export_bundle
    from .export.config import ExportConfig
    from .models.autoencoder import AutoencoderConfig
    from .models.byol import BYOLConfig
    from .models.distillation import DistillationConfig
    from .models.guided_byol import GuidedBYOLConfig
    from .models.infonce import InfoNCEConfig
    from .report.findings import Conclusion
    from .report.writing import write_report
    from .runtime.encoder import Encoder
    from .runtime.errors import ByolEdgeError
    from .train.config import TrainConfig
    from .train.pretrain import pretrain
    from .train.verdict import Verdict

    __version__: str

# Where each name is found; none is that of a sub-package, which an attribute would hide.
_HOMES = {
    "AutoencoderConfig": "models.autoencoder",
    "BYOLConfig": "models.byol",
    "ByolEdgeError": "runtime.errors",
    "Comparison": "evaluate.comparison",
    "Conclusion": "report.findings",
    "Decoding": "decoding.results",
    "DistillationConfig": "models.distillation",
    "Encoder": "runtime.encoder",
    "Export": "export.bundling",
    "ExportConfig": "export.config",
    "GuidedBYOLConfig": "models.guided_byol",
    "InfoNCEConfig": "models.infonce",
    "Limits": "evaluate.validate",
    "TrainConfig": "train.config",
    "Validation": "evaluate.validate",
    "Verdict": "train.verdict",
    "compare_encoders": "evaluate.compare",
    "decode": "decoding.decode",
    "decode_vectors": "decoding.stored",
    "export_bundle": "export.bundling",
    "pretrain": "train.pretrain",
    "validate": "evaluate.validate",
    "write_report": "report.writing",
}

__all__ = [
    "AutoencoderConfig",
    "BYOLConfig",
    "ByolEdgeError",
    "Comparison",
    "Conclusion",
    "Decoding",
    "DistillationConfig",
    "Encoder",
    "Export",
    "ExportConfig",
    "GuidedBYOLConfig",
    "InfoNCEConfig",
    "Limits",
    "TrainConfig",
    "Validation",
    "Verdict",
    "__version__",
    "compare_encoders",
    "decode",
    "decode_vectors",
    "export_bundle",
    "pretrain",
    "validate",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("byol-edge")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
