import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from byol_edge.runtime import Bundle, BundleError, Encoder, EngineError, ImageError, UsageError, find_images
from byol_edge.runtime.onnxruntime_backend import OnnxRuntimeBackend
from PIL import Image

VARIANTS = ["fp32.onnx", "fp32.xml", "int8.onnx", "int8.xml"]
ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(params=VARIANTS)
def encoder(request: pytest.FixtureRequest, finished_bundle: Path) -> Encoder:
    return Encoder(finished_bundle, request.param)


def test_embeddings_are_float32_of_unit_length_in_input_order(encoder: Encoder, photos: Path):
    paths = find_images(photos)[:40:2]
    vectors = encoder.embed(paths)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert vectors.shape == (20, 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
    one_by_one = np.stack([encoder.embed(path) for path in paths])
    for order in (range(20), range(19, -1, -1)):
        cosines = encoder.embed([paths[row] for row in order]) @ one_by_one.T
        assert cosines.argmax(1).tolist() == list(order)
        np.testing.assert_allclose(cosines.max(1), 1, atol=1e-3)


def test_one_image_gives_one_vector(encoder: Encoder, photos: Path):
    path = find_images(photos)[0]
    one = encoder.embed(path)
    assert one.shape == (256,)
    for source in (str(path), path.read_bytes(), Image.open(path), np.asarray(Image.open(path))):
        assert np.array_equal(encoder.embed(source), one)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 31, 32, 33, 70])
def test_any_number_of_images(encoder: Encoder, photos: Path, count: int):
    paths = find_images(photos)[:count]
    vectors = encoder.embed(paths)
    assert vectors.shape == (count, 256)
    for index in {0, count - 1} if count else ():
        assert vectors[index] @ encoder.embed(paths[index]) > 0.999


def test_both_engines_compute_the_same(finished_bundle: Path, photos: Path):
    paths = find_images(photos)
    by_onnxruntime = Encoder(finished_bundle, "fp32", "onnxruntime")
    by_openvino = Encoder(finished_bundle, "fp32", "openvino")
    assert (by_onnxruntime.variant, by_openvino.variant) == ("fp32.onnx", "fp32.xml")
    np.testing.assert_allclose(by_onnxruntime.embed(paths), by_openvino.embed(paths), atol=1e-5)


def test_auto_is_the_default_variant_on_every_engine(finished_bundle: Path):
    default = Bundle.open(finished_bundle).default.name
    assert default.endswith(".onnx")
    for backend in ("auto", "onnxruntime", "openvino"):
        assert Encoder(finished_bundle, backend=backend).variant == default


def test_openvino_runs_an_onnx_file_too(finished_bundle: Path, photos: Path):
    paths = find_images(photos)[:20]
    foreign = Encoder(finished_bundle, "int8.onnx", "openvino")
    assert foreign.engine == "openvino"
    cosine = (foreign.embed(paths) * Encoder(finished_bundle, "int8.onnx").embed(paths)).sum(1)
    assert cosine.min() > 0.99


def test_the_id_names_model_and_variant(finished_bundle: Path):
    ids = {Encoder(finished_bundle, name).id for name in VARIANTS}
    assert len(ids) == 4
    digest, variant = Encoder(finished_bundle, "int8.onnx").id.split(":")
    assert (len(digest), variant) == (12, "int8.onnx")
    assert {Encoder(finished_bundle, "int8.onnx", engine).id for engine in ENGINES} == {f"{digest}:int8.onnx"}


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_an_onnx_file_works_alone_and_is_the_same_model(bundle: Path, photos: Path, tmp_path: Path, backend: str):
    alone = Encoder((bundle / "int8.onnx").rename(tmp_path / "moved.onnx"), backend=backend)
    path = find_images(photos)[0]
    assert alone.embed(path).shape == (256,)
    assert alone.preprocessing.image_size == 32
    assert alone.variant == "int8.onnx"
    with pytest.raises(UsageError, match="whole bundle"):
        alone.self_test()


def test_a_file_alone_has_the_id_that_it_has_in_the_bundle(finished_bundle: Path):
    assert Encoder(finished_bundle / "fp32.onnx").id == Encoder(finished_bundle, "fp32.onnx").id


def test_a_file_alone_is_the_variant_that_it_is(finished_bundle: Path):
    assert Encoder(finished_bundle / "int8.onnx", "int8").variant == "int8.onnx"
    with pytest.raises(UsageError, match=r"variant=fp32: .*int8\.onnx is int8\.onnx"):
        Encoder(finished_bundle / "int8.onnx", "fp32")
    with pytest.raises(UsageError, match="backend=xyz: no such engine"):
        Encoder(finished_bundle / "int8.onnx", backend="xyz")


def test_files_that_are_no_models_are_refused(tmp_path: Path):
    with pytest.raises(BundleError, match="cannot be read"):
        Encoder(tmp_path / "gone.onnx")
    (tmp_path / "junk.onnx").write_bytes(b"junk" * 100)
    with pytest.raises(BundleError, match=r"junk\.onnx: not an \.onnx file"):
        Encoder(tmp_path / "junk.onnx")


def test_a_missing_engine_says_which_extra_installs_it(finished_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match=r"pip install 'byol-edge\[openvino\]'"):
        Encoder(finished_bundle, "fp32.xml")
    assert Encoder(finished_bundle).engine == "onnxruntime"


def test_unknown_engines_and_impossible_pairs_are_refused(finished_bundle: Path):
    with pytest.raises(UsageError, match="backend=tensorrt: no such engine; there are onnxruntime, openvino"):
        Encoder(finished_bundle, backend="tensorrt")
    with pytest.raises(UsageError, match=r"backend=onnxruntime does not run fp32\.xml"):
        Encoder(finished_bundle, "fp32.xml", "onnxruntime")


def test_an_unreadable_image_is_named(encoder: Encoder, photos: Path, tmp_path: Path):
    (tmp_path / "broken.jpg").write_bytes(b"x")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        encoder.embed([find_images(photos)[0], tmp_path / "broken.jpg"])


def test_pixels_of_another_size_are_refused(encoder: Encoder):
    with pytest.raises(ImageError, match=r"takes uint8 \[N, 32, 32, 3\]"):
        encoder.run(np.zeros((1, 31, 32, 3), np.uint8))


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_absurd_numbers_of_threads_are_refused(finished_bundle: Path, threads: int):
    with pytest.raises(UsageError, match=f"threads={threads}"):
        Encoder(finished_bundle, threads=threads)


def test_eight_threads_give_the_bytes_of_one(encoder: Encoder, photos: Path):
    paths = find_images(photos)[:32]
    alone = [encoder.embed(path).tobytes() for path in paths]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda path: encoder.embed(path).tobytes(), paths)) == alone


def test_a_closed_encoder_says_so(finished_bundle: Path, photos: Path):
    path = find_images(photos)[0]
    with Encoder(finished_bundle) as encoder:
        encoder.embed(path)
    with pytest.raises(UsageError, match="closed"):
        encoder.embed(path)


# What a child does after its parent's encoder was refused there; OpenVINO itself cannot run in it (shared_core).
AFTER_A_FORK = {
    "onnxruntime": "assert Encoder(bundle, 'fp32', 'onnxruntime').embed(path).tobytes() == expected",
    "openvino": """
        try:
            Encoder(bundle, 'fp32', 'openvino')
            os._exit(5)
        except EngineError as again:
            assert "'spawn'" in str(again)
        Encoder(bundle, 'fp32', 'onnxruntime').embed(path)
""",
}


@pytest.mark.parametrize("backend", AFTER_A_FORK)
def test_after_a_fork_it_refuses_and_a_new_one_works_or_says_why_not(finished_bundle: Path, photos: Path, backend: str):
    pytest.importorskip(backend)
    code = f"""
import os, sys
from byol_edge.runtime import EngineError, Encoder, find_images
path = find_images({str(photos)!r})[0]
bundle = {str(finished_bundle)!r}
encoder = Encoder(bundle, "fp32", {backend!r})
expected = encoder.embed(path).tobytes()
child = os.fork()
if not child:
    try:
        encoder.embed(path)
    except EngineError as error:
        assert "fork" in str(error)
        {AFTER_A_FORK[backend].strip()}
        os._exit(0)
    os._exit(4)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert encoder.embed(path).tobytes() == expected
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_low_power_gives_the_same_vectors(finished_bundle: Path, photos: Path, backend: str):
    paths = find_images(photos)[:5]
    usual, saving = (Encoder(finished_bundle, "fp32", backend, low_power=each) for each in (False, True))
    assert saving.id == usual.id
    np.testing.assert_allclose(saving.embed(paths), usual.embed(paths), atol=1e-6)


@pytest.mark.parametrize(("backend", "says"), [("onnxruntime", "has cpu"), ("openvino", "has cpu")])
def test_a_device_that_is_not_there_is_named_with_those_that_are(finished_bundle: Path, backend: str, says: str):
    with pytest.raises(EngineError, match=f"device=toaster: .* has no such device here; it {says}") as raised:
        Encoder(finished_bundle, "fp32", backend, device="toaster")
    assert raised.value.arguments == {"device": "toaster"}
    assert Encoder(finished_bundle, "fp32", backend, device="CPU").engine == backend


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda vectors: vectors * np.float32(np.nan), "vectors with numbers that are not finite"),
        (lambda vectors: vectors.astype(np.float64), "vectors of float64, not float32"),
        (lambda vectors: vectors * 11088, "vectors of length 1.109e[+]04, not 1"),
    ],
)
def test_vectors_that_are_no_embeddings_are_not_handed_on(
    finished_bundle: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., Any], problem: str
):
    run = OnnxRuntimeBackend.run
    monkeypatch.setattr(OnnxRuntimeBackend, "run", lambda self, images: spoil(run(self, images)))
    encoder = Encoder(finished_bundle, "fp32", "onnxruntime")
    paths = find_images(photos)[:3]
    for images in (paths[0], paths):
        with pytest.raises(EngineError, match=rf"fp32\.onnx on onnxruntime gives {problem}"):
            encoder.embed(images)
    # What validates a model gets what it gives, to say what is wrong with it.
    assert encoder.run(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 256)
