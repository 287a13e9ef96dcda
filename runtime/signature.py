"""A bundle's signature, by which a fleet of devices refuses what its owner did not export.

Ed25519 (RFC 8032) over the bytes of the manifest, which holds the hash of every other file; 64 bytes in a file of their
own. OpenSSL makes the keys, and can check the signature, too: see docs/security.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .errors import BundleError, ByolEdgeError, UsageError
from .untrusted import read_bytes

SIGNATURE = "manifest.sig"
LENGTH = 64
# Bytes of a key's file.
MOST_KEY = 2**14


def sign(manifest: bytes, private_key: Path) -> bytes:
    """The signature of a manifest. `private_key`: a PEM file. Raises ByolEdgeError, naming the key's file."""
    return _load_key(private_key, "private").sign(manifest)


def check_private_key(private_key: Path) -> None:
    """Raises ByolEdgeError, naming the file, if nothing can be signed with it."""
    _load_key(private_key, "private")


def verify(folder: Path, manifest: bytes, public_key: Path) -> None:
    """Raises BundleError if the manifest of the bundle `folder` is not signed by that key's owner.

    `public_key`: a PEM file. Raises ByolEdgeError where it is none.
    """
    key = _load_key(public_key, "public")
    file = folder / SIGNATURE
    try:
        signature = read_bytes(file, LENGTH)
    except FileNotFoundError:
        raise BundleError(f"{folder}: not signed (it holds no {SIGNATURE}), so it is refused") from None
    except OSError as error:
        raise BundleError(f"{file}: not a signature ({error.strerror})") from error
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, manifest)
    except InvalidSignature:
        raise BundleError(
            f"{folder}: not signed by the owner of {public_key}, or changed since; do not trust this bundle"
        ) from None


def _load_key(file: Path, kind: str) -> Any:
    """An Ed25519 key from a PEM file; `kind`: "private" or "public"."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UsageError("signatures take the package cryptography: pip install 'byol-edge[sign]'") from None
    try:
        content = read_bytes(file, MOST_KEY)
    except OSError as error:
        raise ByolEdgeError(f"{file}: the key cannot be read ({error.strerror})") from error
    try:
        if kind == "private":
            key = serialization.load_pem_private_key(content, password=None)
            fits = isinstance(key, ed25519.Ed25519PrivateKey)
        else:
            key = serialization.load_pem_public_key(content)
            fits = isinstance(key, ed25519.Ed25519PublicKey)
    except (ValueError, TypeError) as error:  # TypeError: it takes a password
        raise ByolEdgeError(f"{file}: not a {kind} key in PEM without a password ({error})") from error
    if not fits:
        raise ByolEdgeError(f"{file}: a {kind} key of another kind; Ed25519 is needed")
    return key
