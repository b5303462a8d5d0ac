"""`verify_bundle`: what holds, what does not, and how the command says so."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from bundle_making import edit_manifest, reseal
from command_line import deploykit

import deploy_kit
from deploy_kit.base.errors import DeviceError
from deploy_kit.delivery import contents, manifest
from deploy_kit.delivery.verification import expect_version, verify_bundle
from deploy_kit.devices.links import Connection

pytest_plugins = ["tiny_line", "tiny_bundles"]
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_verifies_where_it_was_packed(packed, engine: str) -> None:
    found = deploy_kit.verify(packed("int8", engine))

    assert [(row.what, row.ok) for row in found.findings] == [
        ("files", True), ("signature", None), ("version", True), ("golden outputs", True),
    ]  # fmt: skip
    assert found.ok
    assert "8 images, 0 of the largest logit off, at most 0.05 allowed" in found.findings[-1].detail


def test_the_command_says_what_differs(bundle: Path) -> None:
    assert deploykit("verify", bundle).code == 0

    data = (bundle / "model.onnx").read_bytes()
    (bundle / "model.onnx").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    said = deploykit("verify", bundle)

    assert said.code == 1
    assert "NO" in said.out
    assert "model.onnx: changed since it was packed" in said.out
    assert "golden" not in said.out  # a changed engine is not run


def test_a_number_that_was_changed_in_the_manifest_is_a_no(bundle: Path) -> None:
    data = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    data["images"]["n"] *= 1000
    (bundle / "manifest.json").write_text(json.dumps(data), encoding="utf-8")

    said = deploykit("verify", bundle)
    alone = subprocess.run([sys.executable, bundle / "verify.py"], capture_output=True, text=True)

    assert said.code == 1
    assert "manifest.json: changed since it was packed: its sha256 is not" in said.out
    assert (alone.returncode, alone.stdout) == (1, "FAILED  manifest.json: changed since it was packed\n")


def test_a_bundle_of_an_earlier_version_whose_manifest_has_no_hash_verifies(bundle: Path) -> None:
    data = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    del data["sha256"]
    (bundle / "manifest.json").write_text(json.dumps(data), encoding="utf-8")

    assert deploykit("verify", bundle).code == 0


def test_outputs_that_differ_are_a_no(bundle: Path, connection: Connection) -> None:
    with np.load(bundle / "golden.npz") as data:
        images, logits = data["images"], data["logits"]
    np.savez(bundle / "golden.npz", images=images, logits=logits + 0.06 * np.abs(logits).max())
    reseal(bundle)

    with contents.opened(bundle) as opened:
        found = verify_bundle(opened, connection)

    assert not found.ok
    assert "0.0" in found.findings[-1].detail


def test_golden_arrays_are_what_the_manifest_says(bundle: Path) -> None:
    np.savez(bundle / "golden.npz", images=np.zeros((8, 17, 16), np.uint8), logits=np.ones((8, 4), np.float32))
    reseal(bundle)

    said = deploykit("verify", bundle)

    assert said.code == 2
    assert "'images': expected uint8 (8, 16, 16), found uint8 (8, 17, 16)" in said.error


def test_another_version_is_refused_by_name(bundle: Path, connection: Connection) -> None:
    edit_manifest(bundle, lambda m: m["engine"].update(minimum="99.1"))
    said = deploykit("verify", bundle)
    assert said.code == 4
    assert "and this bundle needs 99.1 or later" in said.error
    assert "pip install 'onnxruntime>=99.1'" in said.fix

    edit_manifest(bundle, lambda m: m["engine"].update(minimum="1.0", exact=True))
    data = (bundle / "manifest.json").read_bytes()
    with pytest.raises(DeviceError, match=r"needs exactly 1\.0"):
        expect_version(manifest.parse_manifest(data, "m"), connection)


def test_a_missing_package_is_said(bundle: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connection), "lacks", lambda self, name: "pip install it" * (name == "onnxruntime"))

    said = deploykit("verify", bundle)

    assert said.code == 3
    assert "'local' lacks the package 'onnxruntime', which runs this bundle" in said.error
    assert "pip install it" in said.fix


def test_a_package_that_is_not_the_engines_is_not_looked_for(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["engine"].update(package="antigravity.x"))

    said = deploykit("verify", bundle)

    assert said.code == 2
    assert "expected the package 'onnxruntime', the manifest names another" in said.error
    assert "antigravity" not in sys.modules


def test_options_that_the_engine_does_not_have_are_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["engine"].update(options={"provider": "/tmp/evil.so"}))

    said = deploykit("verify", bundle)

    assert said.code == 2
    assert "unknown key 'provider'" in said.error


def test_a_bundle_for_an_engine_that_does_not_exist_is_refused(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["engine"].update(name="os"))

    assert deploykit("verify", bundle).code == 2
