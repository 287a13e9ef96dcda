"""Makes a static page that finds the nearest images of a small index in a browser, with nothing sent anywhere.

    byol-edge embed bundles/photos photos/ -o vectors.npz
    python examples/browser/prepare.py bundles/photos site vectors.npz
    python -m http.server -d site

Give one file of vectors for each variant that the page is to have, such as int8.onnx and fp32.onnx: vectors of two
variants do not mix. The page holds small pictures of the index's images and the bundle's golden images, so whoever
gets the page gets these. npm (of Node.js) fetches onnxruntime-web, 33 MB, once; it is kept in ort/ beside this file.
"""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from byol_edge.runtime import ByolEdgeError
from byol_edge.runtime.bundle import Bundle, Variant
from byol_edge.runtime.golden import read_golden
from byol_edge.runtime.preprocessing import open_image
from byol_edge.runtime.vectors import VectorFile, load_vectors
from PIL import Image

HERE = Path(__file__).parent
PACKAGE = "onnxruntime-web@1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
# The last one names its license, MIT.
ENGINE = (
    "dist/ort.wasm.min.mjs",
    "dist/ort-wasm-simd-threaded.mjs",
    "dist/ort-wasm-simd-threaded.wasm",
    "package.json",
)
# The engine whose vectors the browser's are to be like.
NATIVE = "onnxruntime"
# Images of an index: a page loads all of them. Their pictures' longer side, in pixels.
MOST_IMAGES, PICTURE = 2000, 160


def main(arguments: list[str]) -> None:
    if len(arguments) < 3:
        sys.exit(__doc__)
    bundle, site = Bundle.open(arguments[0]), Path(arguments[1])
    indexes = read_indexes(bundle, arguments[2:])
    sources = next(iter(indexes.values())).sources
    clear_site(site)
    shutil.copytree(HERE / "page", site, dirs_exist_ok=True)
    shutil.copytree(fetch_engine(), site / "ort", dirs_exist_ok=True)
    golden = read_golden(bundle)
    (site / "golden").mkdir(exist_ok=True)
    for name in golden.files:
        (site / name).write_bytes(bundle.read(name))
    for variant, index in indexes.items():
        (site / variant.name).write_bytes(bundle.read(variant.name))
        (site / f"{variant.name}.vectors").write_bytes(index.vectors.astype("<f4").tobytes())
    content = {
        "preprocessing": bundle.preprocessing.to_json(),
        "border": bundle.preprocessing.border,
        "size": bundle.embedding_size,
        "variants": {
            variant.name: {"own_cosine": variant.own_cosine, "golden": encode(golden.of(variant.name, NATIVE))}
            for variant in indexes
        },
        "golden": {"images": encode(golden.images), "count": len(golden.images)},
        "files": {name: encode(pixels) for name, pixels in golden.files.items()},
        "images": [{"name": "/".join(Path(each).parts[-2:]), "picture": picture(each)} for each in sources],
    }
    (site / "index.json").write_text(json.dumps(content), encoding="utf-8")
    print(f"{site}: {len(sources)} images, {', '.join(each.name for each in indexes)}; next: "
          f"python -m http.server -d {site}")  # fmt: skip


def clear_site(site: Path) -> None:
    """The folder has to be new, or a site that was made before, whose models are removed."""
    if site.exists() and not site.is_dir():
        sys.exit(f"{site} is a file; give a folder to write the site to")
    if site.exists() and not (site / "index.json").exists() and any(site.iterdir()):
        sys.exit(f"{site} holds something else; choose another folder")
    for file in (*site.glob("*.onnx"), *site.glob("*.vectors")):
        file.unlink()


def read_indexes(bundle: Bundle, files: list[str]) -> dict[Variant, VectorFile]:
    """The vectors in each file, by the variant that made them: one of the bundle's that a browser runs."""
    indexes: dict[Variant, VectorFile] = {}
    for file in files:
        index = load_vectors(file)
        digest, _, name = index.model.partition(":")
        variant = bundle.variants.get(name)
        if variant is None or bundle.digest(variant) != digest:
            sys.exit(f"{file}: its vectors are by {index.model}, which is not of {bundle.path}")
        if variant.format != "onnx" or not variant.agree(index.engine, NATIVE):
            made_by = f"{index.model} on {index.engine}"
            sys.exit(f"{file}: its vectors are by {made_by}; embed with an .onnx variant and --backend {NATIVE}")
        if len(index.sources) > MOST_IMAGES:
            sys.exit(f"{file}: {len(index.sources)} images are too many for one page; {MOST_IMAGES} are the most")
        if variant in indexes:
            sys.exit(f"{file}: another file of vectors is by {variant.name}, too; give one for each variant")
        if any(each.sources != index.sources for each in indexes.values()):
            sys.exit(f"{file}: its vectors are of other images; embed the same folder with each variant")
        indexes[variant] = index
    return indexes


def picture(source: str) -> str:
    """A small picture as a data URI; empty where the file is gone."""
    try:
        image = open_image(source)
    except ByolEdgeError as error:
        print(f"no picture: {error}", file=sys.stderr)
        return ""
    image.thumbnail((PICTURE, PICTURE), Image.Resampling.BICUBIC)
    content = io.BytesIO()
    image.save(content, "WEBP", quality=70)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def encode(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def fetch_engine() -> Path:
    """The folder with onnxruntime-web's files; fetched by npm where they are not there yet, and checked."""
    folder = HERE / "ort"
    if all((folder / Path(name).name).is_file() for name in ENGINE):
        return folder
    with tempfile.TemporaryDirectory() as place:
        try:
            subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=place, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            sys.exit(f"npm is not installed: it comes with Node.js, and fetches {PACKAGE}")
        except subprocess.CalledProcessError:
            sys.exit(f"npm could not fetch {PACKAGE}: is there a network?")
        (archive,) = Path(place).glob("*.tgz")
        content = archive.read_bytes()
        if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
            sys.exit(f"{PACKAGE} is not what it was when this script was written: do not use it")
        folder.mkdir(exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(content)) as files:
            for inside in ENGINE:
                member = files.extractfile(f"package/{inside}")
                assert member is not None
                (folder / Path(inside).name).write_bytes(member.read())
    return folder


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except ByolEdgeError as error:
        sys.exit(str(error))
