"""Signatures: the right key and nothing changed, or a no that says why."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bundle_making import edit_manifest, pack
from command_line import deploykit

import deploy_kit
from deploy_kit.base.errors import InputError
from deploy_kit.base.lazy import install_line, present

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "tiny_bundles"]
pytestmark = pytest.mark.slow

if not (present("model_signing") and present("OpenSSL")):
    pytest.skip(install_line("model_signing"), allow_module_level=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with two pairs of keys: a.pem, a.pub, b.pem, b.pub."""
    from cryptography.hazmat.primitives import serialization as form
    from cryptography.hazmat.primitives.asymmetric import ec

    folder = tmp_path_factory.mktemp("keys")
    for name in "ab":
        key = ec.generate_private_key(ec.SECP256R1())
        private = (form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        (folder / f"{name}.pem").write_bytes(key.private_bytes(*private))
        public = (form.Encoding.PEM, form.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(*public))
    return folder


@pytest.fixture
def signed(line: "Line", keys: Path, tmp_path: Path) -> Path:
    return pack(line, "int8", "onnxruntime", tmp_path / "signed", sign=keys / "a.pem")


def signature(bundle: Path, key: Path) -> tuple[bool | None, str]:
    finding = next(row for row in deploy_kit.verify(bundle, public_key=key).findings if row.what == "signature")
    return finding.ok, finding.detail


def test_the_key_that_signed_verifies_wherever_the_bundle_lies(signed: Path, keys: Path, tmp_path: Path) -> None:
    assert signature(signed, keys / "a.pub")[0] is True
    moved = signed.rename(tmp_path / "elsewhere")
    assert signature(moved, keys / "a.pub")[0] is True
    said = deploykit("verify", moved, "--public-key", keys / "a.pub")
    assert said.code == 0
    assert "made with the key sha256:" in said.out


def test_a_signed_zip_verifies(line: "Line", keys: Path, tmp_path: Path) -> None:
    out = pack(line, "int8", "onnxruntime", tmp_path / "signed.zip", sign=keys / "a.pem")

    assert signature(out, keys / "a.pub")[0] is True


def test_another_key_is_a_no(signed: Path, keys: Path) -> None:
    ok, detail = signature(signed, keys / "b.pub")

    assert ok is False
    assert "bundle.sig: made with another key than sha256:" in detail


def test_a_manifest_that_was_changed_along_with_its_file_is_a_no(signed: Path, keys: Path) -> None:
    edit_manifest(signed, lambda m: m["engine"].update(minimum="1.0"))

    ok, detail = signature(signed, keys / "a.pub")

    assert (ok, detail) == (False, "bundle.sig: the files are not those that were signed")
    assert deploykit("verify", signed, "--public-key", keys / "a.pub").code == 1


def test_every_flipped_bit_of_the_signed_text_is_a_no(signed: Path, keys: Path) -> None:
    file = signed / "bundle.sig"
    data = file.read_bytes()
    for at in range(0, len(data), max(1, len(data) // 40)):
        file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert signature(signed, keys / "a.pub")[0] is False or file.read_bytes().swapcase() == data.swapcase(), at


def test_no_signature_where_a_key_is_given_is_a_no(bundle: Path, keys: Path) -> None:
    assert signature(bundle, keys / "a.pub") == (False, "bundle.sig: missing: the bundle is not signed")


def test_without_a_key_it_is_said_and_not_asked(signed: Path) -> None:
    finding = deploy_kit.verify(signed).findings[1]

    assert (finding.ok, finding.detail) == (None, "signed; not verified without a key (--public-key)")


@pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"])
def test_what_is_no_key_is_said(line: "Line", bundle: Path, tmp_path: Path, content: bytes, signed: Path) -> None:
    (tmp_path / "key").write_bytes(content)

    with pytest.raises(InputError, match="not an elliptic-curve public key"):
        deploy_kit.verify(signed, public_key=tmp_path / "key")
    with pytest.raises(InputError, match="not an elliptic-curve key to sign with"):
        pack(line, "int8", "onnxruntime", tmp_path / "out", sign=tmp_path / "key")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="no such key"):
        pack(line, "int8", "onnxruntime", tmp_path / "out", sign=tmp_path / "nothing")
