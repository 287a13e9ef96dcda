import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import EngineError
from byol_edge.runtime.openvino_backend import OpenVinoBackend, _batch_size

FORK_AFTERWARDS = """
import gc, os, sys
from byol_edge.runtime import Encoder
import numpy as np
encoder = Encoder(sys.argv[1], "fp32.xml")
encoder.run(np.zeros((1, 32, 32, 3), np.uint8))
del encoder
gc.collect()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
print("alive")
"""


def contents(bundle: Path) -> tuple[bytes, ...]:
    return tuple((bundle / name).read_bytes() for name in ("fp32.xml", "fp32.bin"))


@pytest.mark.parametrize(("images", "size"), [(1, 1), (2, 8), (8, 8), (9, 32), (31, 32), (32, 32), (1000, 32)])
def test_a_batch_is_cut_into_few_sizes(images: int, size: int):
    assert _batch_size(images) == size


def test_it_computes_in_float32_whatever_the_cpu_prefers(finished_bundle: Path):
    backend = OpenVinoBackend.load(contents(finished_bundle), threads=1)
    (compiled,) = backend._compiled.values()
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) in ("f32", "<Type: 'float32'>")


def test_only_the_sizes_that_are_used_are_compiled(finished_bundle: Path):
    backend = OpenVinoBackend.load(contents(finished_bundle), threads=1)
    backend.run(np.zeros((33, 32, 32, 3), np.uint8))
    assert set(backend._compiled) == {1, 32}


def test_a_damaged_model_is_refused():
    with pytest.raises(EngineError, match="OpenVINO .* refuses the model"):
        OpenVinoBackend.load((b"<net/>", b""), threads=1)


def test_a_process_can_fork_after_the_last_encoder_is_gone(finished_bundle: Path):
    # OpenVINO unloads its plug-in with the last Core and leaves fork handlers behind: a segmentation fault.
    result = subprocess.run(
        [sys.executable, "-c", FORK_AFTERWARDS, str(finished_bundle)], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, "alive\n")
