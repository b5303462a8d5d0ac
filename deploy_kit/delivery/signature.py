"""Who packed a bundle: a signature over all its files, with a key of the user's own and without a network.

The format is OpenSSF's model signing with an elliptic-curve key (P-256, P-384 or P-521), which ``model_signing verify
key`` reads too. A signature holds random numbers: two of the same bundle differ, while all other files are the same.
"""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit.base.errors import InputError
from deploy_kit.base.lazy import need
from deploy_kit.delivery import manifest

if TYPE_CHECKING:
    from deploy_kit.delivery.contents import BundleContents
    from deploy_kit.delivery.verification import BundleFinding

_BY = "signing bundles"
_MAX_BYTES = 4 << 20
_MAKE_KEY = (
    "openssl ecparam -name prime256v1 -genkey -noout -out key.pem && openssl ec -in key.pem -pubout -out public.pem"
)


def sign(folder: Path, private_key: Path) -> None:
    """Sign all files of a bundle.

    Args:
        folder: The finished bundle.
        private_key: PEM file with an elliptic-curve key that has no password.

    Raises:
        InputError: No such key, or not one that can sign.
        MissingPackageError: The package ``model-signing`` is not installed.
    """
    signing = _library().signing
    target = folder / manifest.SIGNATURE
    try:
        signer = signing.Config().use_elliptic_key_signer(private_key=private_key)
        signer.set_hashing_config(_hashing(target)).sign(folder, target)
    except (OSError, ValueError, TypeError, AttributeError, _crypto().UnsupportedAlgorithm) as error:
        raise InputError(
            f"{private_key}: not an elliptic-curve key to sign with: {error}", hint=f"make one: {_MAKE_KEY}"
        ) from error


def verify_private_key(private_key: Path) -> None:
    """Refuse a key that does not exist, before any work.

    Raises:
        InputError: No such file.
        MissingPackageError: The package ``model-signing`` is not installed.
    """
    _library()
    if not private_key.is_file():
        raise InputError(f"{private_key}: no such key", hint=f"make one: {_MAKE_KEY}")


def examine(contents: "BundleContents", public_key: Path | None) -> "BundleFinding":
    """Verify the signature of a bundle; without a key only say whether it has one.

    Raises:
        InputError: No such key, or not a public key.
        MissingPackageError: A key is given, and the package ``model-signing`` is not installed.
    """
    from deploy_kit.delivery.verification import BundleFinding

    file = contents.file(manifest.SIGNATURE)
    if public_key is None:
        said = "signed; not verified without a key (--public-key)" if contents.signed else "not signed"
        return BundleFinding(what="signature", ok=None, detail=said)
    if not contents.signed:
        return BundleFinding(
            what="signature", ok=False, detail=f"{manifest.SIGNATURE}: missing: the bundle is not signed"
        )
    if file.stat().st_size > _MAX_BYTES:
        return BundleFinding(what="signature", ok=False, detail=f"{manifest.SIGNATURE}: larger than a signature")
    why = _why_not(contents.folder, file, public_key)
    return BundleFinding(what="signature", ok=not why, detail=why or f"made with the key {_fingerprint(public_key)}")


def _why_not(folder: Path, file: Path, public_key: Path) -> str:
    """Return why a signature does not hold; empty if it does."""
    verifying = _library().verifying
    try:
        verifier = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, AttributeError, _crypto().UnsupportedAlgorithm) as error:
        raise InputError(
            f"{public_key}: not an elliptic-curve public key: {error}", hint="openssl ec -in key.pem -pubout"
        ) from error
    try:
        verifier.set_hashing_config(_hashing(file)).verify(folder, file)
    except _crypto().InvalidSignature:
        return f"{file.name}: not made with the key {_fingerprint(public_key)}"
    # What the library raises on a file that is no signature, beside ValueError.
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError) as error:
        if "Key mismatch" in str(error):
            return f"{file.name}: made with another key than {_fingerprint(public_key)}"
        if "Signature mismatch" in str(error):
            return f"{file.name}: the files are not those that were signed"
        return f"{file.name}: not a signature"
    return ""


def _fingerprint(public_key: Path) -> str:
    return f"sha256:{hashlib.sha256(public_key.read_bytes()).hexdigest()[:16]}"


def _hashing(file: Path) -> Any:
    return _library().hashing.Config().set_ignored_paths(paths=[file], ignore_git_paths=False)


def _library() -> Any:
    need("OpenSSL", by=_BY)  # model-signing 1.1.1 imports it without asking for it
    return need("model_signing", by=_BY)


def _crypto() -> Any:
    return need("cryptography.exceptions", by=_BY)
