"""From images to embeddings on a CPU or an edge device: numpy, Pillow and one engine, no PyTorch."""

from .bundle import Bundle
from .encoder import Encoder
from .errors import (
    BundleError,
    ByolEdgeError,
    EngineError,
    FidelityError,
    ImageError,
    OutputExistsError,
    RunError,
    UsageError,
)
from .feature_maps import FeatureMap
from .fidelity import Fidelity, compare
from .images import find_images
from .preprocessing import Preprocessing, prepare
from .self_test import SelfTest
from .stream import Chunk
from .vectors import VectorFile, load_vectors, save_vectors

__all__ = [
    "Bundle",
    "BundleError",
    "ByolEdgeError",
    "Chunk",
    "Encoder",
    "EngineError",
    "FeatureMap",
    "Fidelity",
    "FidelityError",
    "ImageError",
    "OutputExistsError",
    "Preprocessing",
    "RunError",
    "SelfTest",
    "UsageError",
    "VectorFile",
    "compare",
    "find_images",
    "load_vectors",
    "prepare",
    "save_vectors",
]
