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
    VectorError,
)
from .feature_maps import FeatureMap
from .fidelity import Fidelity, compare
from .images import find_images, iterate_images
from .index import Index, add, check, open_like, search
from .preprocessing import Preprocessing, prepare
from .self_test import SelfTest
from .share import join_vectors
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
    "Index",
    "OutputExistsError",
    "Preprocessing",
    "RunError",
    "SelfTest",
    "UsageError",
    "VectorError",
    "VectorFile",
    "add",
    "check",
    "compare",
    "find_images",
    "iterate_images",
    "join_vectors",
    "load_vectors",
    "open_like",
    "prepare",
    "save_vectors",
    "search",
]
