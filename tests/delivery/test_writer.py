"""A bundle is whole or not there, and has the same bytes for the same inputs."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from bench_records import measurement
from bundle_making import pack

from deploy_kit.base.errors import InputError, StoreError
from deploy_kit.delivery import writer
from deploy_kit.stages.pack import _latency

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "tiny_bundles"]
pytestmark = pytest.mark.slow


def digest(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_the_same_inputs_give_the_same_bytes(line: "Line", tmp_path: Path) -> None:
    # Packed here and not by the session: other tests measure this engine meanwhile, and a bundle says its latency.
    once, again = (pack(line, "int8", "onnxruntime", tmp_path / name) for name in ("once", "again"))
    zips = [pack(line, "int8", "onnxruntime", tmp_path / f"{n}.zip").read_bytes() for n in range(2)]

    assert digest(again) == digest(once)
    assert zips[0] == zips[1]


def test_the_engine_is_the_file_that_was_proved(line: "Line", packed: Callable[..., Path]) -> None:
    built = line.built("int8", "onnxruntime")

    assert hashlib.sha256((packed() / "model.onnx").read_bytes()).hexdigest() == built.sha256


def test_an_earlier_bundle_is_replaced_and_nothing_else(line: "Line", tmp_path: Path) -> None:
    out = pack(line, "fp32", "onnxruntime", tmp_path / "bundle")
    pack(line, "int8", "onnxruntime", out)
    assert "int8" in (out / "manifest.json").read_text()
    assert (pack(line, "int8", "onnxruntime", tmp_path / "new" / "folder") / "manifest.json").is_file()

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    (tmp_path / "file.zip").write_text("mine")
    for target, said in (
        (tmp_path / "mine", "exists, and is not a bundle"),
        (tmp_path / "file.zip", "exists, and is not a bundle"),
        (tmp_path / "file.zip" / "folder", "expected a folder to write to"),
    ):
        with pytest.raises(InputError, match=said):
            pack(line, "int8", "onnxruntime", target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "file.zip", "mine", "new"]


def test_a_full_disk_leaves_the_earlier_bundle(line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = pack(line, "int8", "onnxruntime", tmp_path / "bundle")
    before = digest(out)

    def full(*files: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(StoreError, match="No space left on device"):
        pack(line, "fp32", "onnxruntime", out)

    assert digest(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupt_between_two_bundles_leaves_the_earlier_one(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = pack(line, "int8", "onnxruntime", tmp_path / "bundle")
    before, rename = digest(out), Path.rename

    def interrupted(source: Path, target: Path) -> Path:
        if source.name == "bundle" and target == out and source != out:
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(line, "fp32", "onnxruntime", out)

    assert digest(out) == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_engine_timed_too_shortly_for_a_median_is_packed_without_a_latency() -> None:
    assert _latency(measurement("fp32", [1.0] * 5)) is None
    timed = _latency(measurement("fp32", [1.0] * 50))
    assert timed is not None
    assert (timed.p50_ms, timed.p99_ms) == (1.0, None)


def test_strings_are_written_for_cpp_and_protobuf() -> None:
    assert writer.quoted('a"\\b') == '"a\\042\\134b"'
    assert writer.quoted("ü\n??/") == '"\\303\\274\\012\\077\\077/"'
