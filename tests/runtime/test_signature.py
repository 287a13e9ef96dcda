import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from byol_edge.export.bundling import export_bundle
from byol_edge.export.config import ExportConfig
from byol_edge.runtime import Bundle, BundleError, ByolEdgeError, Encoder, UsageError
from byol_edge.runtime.signature import SIGNATURE, sign
from commands import call, fails
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa


def write_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key in PEM files."""
    key = ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "fleet")


@pytest.fixture
def signed(bundle: Path, keys: tuple[Path, Path]) -> Path:
    """A bundle as `export --sign` leaves it."""
    (bundle / SIGNATURE).write_bytes(sign((bundle / "manifest.json").read_bytes(), keys[0]))
    return bundle


def test_export_signs_and_only_the_owner_of_the_key_is_believed(
    finished_run: Path, keys: tuple[Path, Path], tmp_path: Path
):
    export_bundle(finished_run, tmp_path / "b", ExportConfig(formats=("onnx",), sign=keys[0]))
    assert Encoder(tmp_path / "b", public_key=keys[1]).self_test().passed
    other = write_keys(tmp_path, "other")[1]
    with pytest.raises(BundleError, match=r"not signed by the owner of .*other\.pub\.pem"):
        Encoder(tmp_path / "b", public_key=other)
    assert Encoder(tmp_path / "b").bundle is not None  # nobody has to check it


def test_a_bundle_without_a_signature_is_refused_where_a_key_is_given(bundle: Path, keys: tuple[Path, Path]):
    with pytest.raises(BundleError, match="not signed"):
        Bundle.open(bundle, keys[1])


def test_one_changed_byte_of_the_manifest_is_noticed_and_so_of_any_file(signed: Path, keys: tuple[Path, Path]):
    Bundle.open(signed, keys[1])
    manifest = (signed / "manifest.json").read_bytes()
    (signed / "manifest.json").write_bytes(manifest + b" ")
    with pytest.raises(BundleError, match="do not trust this bundle"):
        Bundle.open(signed, keys[1])
    (signed / "manifest.json").write_bytes(manifest)
    (signed / "fp32.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match="changed since export"):
        Encoder(signed, "fp32.onnx", public_key=keys[1])


@pytest.mark.parametrize("content", [b"", bytes(63), bytes(64), bytes(65), b"\xff" * 64])
def test_a_signature_that_is_none_is_refused(signed: Path, keys: tuple[Path, Path], content: bytes):
    (signed / SIGNATURE).write_bytes(content)
    with pytest.raises(BundleError, match=r"not a signature|not signed"):
        Bundle.open(signed, keys[1])


def test_a_key_that_is_none_is_named(finished_bundle: Path, keys: tuple[Path, Path], tmp_path: Path):
    junk, other = tmp_path / "junk.pem", tmp_path / "rsa.pem"
    junk.write_text("junk")
    other.write_bytes(
        rsa.generate_private_key(65537, 2048)
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    for key, reason in (
        (junk, "not a public key"),
        (keys[0], "not a public key"),
        (other, "Ed25519"),
        (tmp_path / "gone.pem", "cannot be read"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        with pytest.raises(ByolEdgeError, match=f"{key.name}: .*{reason}"):
            Bundle.open(finished_bundle, key)


def test_a_model_file_alone_has_no_signature(signed: Path, keys: tuple[Path, Path]):
    with pytest.raises(UsageError, match="a signature is a bundle's"):
        Encoder(signed / "fp32.onnx", public_key=keys[1])


def test_a_key_that_cannot_sign_is_found_out_before_the_export(finished_run: Path, tmp_path: Path):
    line = fails(1, "export", finished_run, "--out", tmp_path / "b", "--sign", tmp_path / "gone.pem")
    assert "gone.pem: the key cannot be read" in line
    assert not (tmp_path / "b").exists()


def test_the_commands_of_a_device_check_it(signed: Path, keys: tuple[Path, Path], photos: Path, tmp_path: Path):
    out = tmp_path / "v.npz"
    assert call("self-test", signed, "--public-key", keys[1]).exit_code == 0
    assert call("embed", signed, photos, "-o", out, "--public-key", keys[1]).exit_code == 0
    assert "signed      yes" in call("inspect", signed).stdout
    (signed / SIGNATURE).unlink()
    assert "not signed" in fails(1, "self-test", signed, "--public-key", keys[1])
    assert "not signed" in fails(1, "embed", signed, photos, "-o", tmp_path / "w.npz", "--public-key", keys[1])


@pytest.mark.skipif(shutil.which("openssl") is None, reason="takes openssl")
def test_openssl_makes_keys_and_checks_signatures(bundle: Path, tmp_path: Path):
    """As docs/security.md says it."""
    for command in (
        "openssl genpkey -algorithm ed25519 -out fleet.pem",
        "openssl pkey -in fleet.pem -pubout -out fleet.pub.pem",
    ):
        subprocess.run(command.split(), cwd=tmp_path, check=True)
    (bundle / SIGNATURE).write_bytes(sign((bundle / "manifest.json").read_bytes(), tmp_path / "fleet.pem"))
    Bundle.open(bundle, tmp_path / "fleet.pub.pem")
    verify = "openssl pkeyutl -verify -pubin -inkey ../fleet.pub.pem -rawin -in manifest.json -sigfile manifest.sig"
    subprocess.run(verify.split(), cwd=bundle, check=True)


def test_without_the_package_it_says_what_to_install(signed: Path, keys: tuple[Path, Path]):
    code = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from byol_edge.runtime import Bundle, UsageError\n"
        "Bundle.open(sys.argv[1])\n"
        "try: Bundle.open(sys.argv[1], sys.argv[2])\n"
        "except UsageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, signed, keys[1]], capture_output=True, text=True)
    assert done.stdout.strip() == "signatures take the package cryptography: pip install 'byol-edge[sign]'"
