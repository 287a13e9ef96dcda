import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from byol_edge.runtime import EngineError
from byol_edge.runtime.openvino_backend import OpenVinoBackend, _batch_size

SIGNAL_AFTERWARDS = """
import gc, os, signal, sys
import numpy as np
from byol_edge.runtime import Encoder
encoder = Encoder(sys.argv[1], "fp32.xml")
encoder.run(np.zeros((64, 32, 32, 3), np.uint8))
del encoder
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("caught"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def contents(bundle: Path) -> tuple[bytes, ...]:
    return tuple((bundle / name).read_bytes() for name in ("fp32.xml", "fp32.bin"))


@pytest.mark.parametrize(("images", "size"), [(1, 1), (5, 1), (6, 8), (23, 8), (24, 32), (1000, 32)])
def test_a_batch_is_cut_into_few_sizes(images: int, size: int):
    assert _batch_size(images) == size


def test_it_computes_in_float32_whatever_the_cpu_prefers(finished_bundle: Path):
    backend = OpenVinoBackend.load(contents(finished_bundle), threads=1)
    (compiled,) = backend._compiled.values()
    assert str(compiled.get_property("INFERENCE_PRECISION_HINT")) in ("f32", "<Type: 'float32'>")


def test_only_the_sizes_that_are_used_are_compiled(finished_bundle: Path):
    backend = OpenVinoBackend.load(contents(finished_bundle), threads=1)
    assert backend.run(np.zeros((33, 32, 32, 3), np.uint8)).shape[0] == 33
    assert set(backend._compiled) == {1, 32}


def test_a_damaged_model_is_refused():
    with pytest.raises(EngineError, match=r"OpenVINO .* refuses the model"):
        OpenVinoBackend.load((b"<net/>", b""), threads=1)


def test_a_process_takes_signals_after_its_last_encoder_is_gone(finished_bundle: Path):
    command = [sys.executable, "-c", SIGNAL_AFTERWARDS, str(finished_bundle)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "caught\n")
