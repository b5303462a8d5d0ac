"""What is refused of a bundle that somebody gave us: by name, within bounds, and before anything of it runs."""

import dataclasses
import json
import os
import shutil
import struct
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_making import edit_manifest

from deploy_kit.base.errors import InputError
from deploy_kit.delivery import contents, manifest

pytest_plugins = ["tiny_line", "tiny_bundles"]


def refusal(path: Path) -> str:
    """Open a bundle that must be refused."""
    begun = time.process_time()
    with pytest.raises(InputError) as refused, contents.opened(path) as bundle:
        bundle.expect_whole()
    assert time.process_time() - begun < 5
    return str(refused.value)


def zipped(
    bundle: Path, target: Path, *more: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(target, "w", method) as archive:
        for file in sorted(bundle.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(bundle))
        for name, data in more:
            archive.writestr(name, data)
    return target


def test_a_bundle_as_it_was_packed_is_whole_as_a_folder_and_as_a_zip(bundle: Path, tmp_path: Path) -> None:
    for path in (
        bundle,
        zipped(bundle, tmp_path / "a.zip"),
        zipped(bundle, tmp_path / "b.zip", method=zipfile.ZIP_DEFLATED),
    ):
        with contents.opened(path) as opened:
            assert opened.faults == ()


def test_a_manifest_of_an_earlier_version_says_what_its_verdict_is_on(bundle: Path) -> None:
    with contents.opened(bundle) as opened:
        now = opened.manifest
    edit_manifest(bundle, lambda m: m["check"].update(verdict=m["check"].pop("accuracy")))

    with contents.opened(bundle) as opened:
        assert dataclasses.replace(opened.manifest, sha256=now.sha256) == now
        assert opened.passport.origin is not None
        assert opened.passport.origin.accuracy.startswith(now.check.accuracy.word)


def test_every_file_is_noticed_when_one_bit_of_it_flips(bundle: Path) -> None:
    for file in sorted(file for file in bundle.rglob("*") if file.is_file() and file.name != "manifest.json"):
        data = file.read_bytes()
        file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with contents.opened(bundle) as opened:
            assert [fault.split(":")[0] for fault in opened.faults] == [file.relative_to(bundle).as_posix()]
        file.write_bytes(data)


def test_a_missing_a_longer_and_a_foreign_file_are_named(bundle: Path) -> None:
    (bundle / "engine.py").unlink()
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\0")
    (bundle / "numpy.py").write_text("raise SystemExit('run')")

    with contents.opened(bundle) as opened:
        assert "engine.py: missing" in opened.faults
        assert any(fault.startswith("model.onnx: expected ") for fault in opened.faults)
        assert "numpy.py: not of the bundle (delete it)" in opened.faults
    assert "(and 2 more)" in refusal(bundle)


def planted_environment(bundle: Path) -> None:
    """Put a virtual environment with more files than a bundle may have into a bundle, and what Python leaves."""
    packages = bundle / "env" / "lib" / "a" / "b" / "c" / "d"
    packages.mkdir(parents=True)
    (bundle / "env" / "pyvenv.cfg").write_text("home = /usr/bin")
    (bundle / "env" / "python").symlink_to("/usr/bin/python3")
    (bundle / "env" / "lib64").symlink_to("lib")
    for n in range(contents.MAX_FILES):
        (packages / f"{n}.py").touch()
    (bundle / "cpp" / "build").mkdir()
    (bundle / "cpp" / "build" / "classify").touch()


def test_a_foreign_folder_is_one_fault_however_many_files_it_has(bundle: Path, tmp_path: Path) -> None:
    planted_environment(bundle)

    with contents.opened(bundle) as opened:
        assert opened.faults == (
            "cpp/build/: 1 file not of the bundle (delete the folder)",
            "env/: a virtual environment of 1,003 files, not of the bundle (make it outside of this folder)",
        )
    shutil.rmtree(bundle / "env")
    (bundle / "empty").mkdir()
    for path in (bundle, zipped(bundle, tmp_path / "a.zip")):
        with contents.opened(path) as opened:
            assert opened.faults == ("cpp/build/: 1 file not of the bundle (delete the folder)",)


def test_a_folder_of_a_name_that_python_imports_is_a_fault_though_it_looks_like_an_environment(bundle: Path) -> None:
    (bundle / "predict").mkdir()
    for name in ("pyvenv.cfg", "__init__.py"):
        (bundle / "predict" / name).touch()

    assert "predict/: a virtual environment of 2 files, not of the bundle" in refusal(bundle)


def test_a_manifest_that_is_a_link_is_refused(bundle: Path, tmp_path: Path) -> None:
    (bundle / "manifest.json").rename(tmp_path / "manifest.json")
    (bundle / "manifest.json").symlink_to(tmp_path / "manifest.json")

    assert "'manifest.json' is a link" in refusal(bundle)


@pytest.mark.parametrize("target", ["/etc/passwd", "model.onnx", "nowhere"])
def test_links_are_not_followed(bundle: Path, target: str) -> None:
    (bundle / "link").symlink_to(target)

    assert "'link' is a link, and a bundle has none" in refusal(bundle)


def test_links_to_folders_and_special_files_are_refused(bundle: Path) -> None:
    os.mkfifo(bundle / "pipe")
    assert "'pipe' is neither a file nor a folder" in refusal(bundle)
    (bundle / "pipe").unlink()
    (bundle / "up").symlink_to("..")
    assert "'up' is a link" in refusal(bundle)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        "",
        ".",
        "a/.hidden",
        "a\\b",
        "a\nb",
        "\x1b[2J",
        "a" * 300,
        "C:x",
    ],
)
def test_paths_that_lead_elsewhere_are_refused_in_manifests_and_zips(bundle: Path, tmp_path: Path, path: str) -> None:
    data = {"path": path, "sha256": "0" * 64, "size": 1}
    archive = zipped(bundle, tmp_path / "a.zip", (zipfile.ZipInfo(path or "x//y"), b"x"))
    edit_manifest(bundle, lambda m: m["files"].append(data))

    for found in (refusal(bundle), refusal(archive)):
        assert "expected the path of a file within the bundle, found " in found
        assert "\x1b" not in found
        assert "\n" not in found
    assert not (tmp_path / "outside").exists()


def test_a_name_that_occurs_twice_is_refused(bundle: Path, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(bundle, tmp_path / "a.zip", ("engine.py", b"raise SystemExit"))

    assert "has 'engine.py' twice" in refusal(twice)
    assert "has 'Engine.py' twice" in refusal(zipped(bundle, tmp_path / "b.zip", ("Engine.py", b"x")))

    edit_manifest(bundle, lambda m: m["files"].append({**m["files"][0], "path": "readme.MD"}))
    assert "lists 'readme.MD' twice" in refusal(bundle)


def test_a_link_in_a_zip_is_refused(bundle: Path, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, 0o120777 << 16

    assert "'link' is a link or a special file" in refusal(zipped(bundle, tmp_path / "a.zip", (link, b"/etc/passwd")))


def test_a_file_that_unpacks_to_far_more_is_refused(bundle: Path, tmp_path: Path) -> None:
    bomb = zipped(bundle, tmp_path / "a.zip", ("big", bytes(64 << 20)), method=zipfile.ZIP_DEFLATED)

    assert "'big' unpacks from " in refusal(bomb)


def test_a_zip_with_a_vast_directory_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, 1 << 30, 0, 0)
    path.write_bytes(b"PK\3\4" + bytes(100) + end)

    assert "65,535 members in 1,073,741,824 bytes, more than a bundle has" in refusal(path)


def test_many_files_are_refused(bundle: Path) -> None:
    for n in range(contents.MAX_FILES):
        (bundle / f"{n}").touch()
    assert "more files or deeper folders than a bundle has" in refusal(bundle)


def test_a_huge_manifest_is_not_read(bundle: Path) -> None:
    with (bundle / "manifest.json").open("r+b") as file:
        file.truncate(manifest.MAX_BYTES + 1)

    assert "expected at most 16 MiB" in refusal(bundle)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"[" * 100_000, "not a manifest"),
        (b"\xff\xfe", "not a manifest"),
        (b"[]", "expected a manifest of schema version 1, found None"),
        (b'{"schema_version": 2}', "expected a manifest of schema version 1, found 2"),
        (b'{"schema_version": 1}', "'name' is missing"),
        (b'{"schema_version": true}', "found True"),
        (b'{"schema_version": 1, "schema_version": 1}', "the key 'schema_version' occurs twice"),
        (b'{"schema_version": 1, "engine": {"file": "a", "file": "b"}}', "the key 'file' occurs twice"),
        (b'{"schema_version": 1, "n": ' + b"9" * 10_000 + b"}", "not a manifest"),
    ],
)
def test_what_is_no_manifest_is_said(bundle: Path, data: bytes, said: str) -> None:
    (bundle / "manifest.json").write_bytes(data)

    assert said in refusal(bundle)


CHANGES: list[tuple[Callable[[dict], object], str]] = [  # type: ignore[type-arg]
    (lambda m: m.update(classes=["a", "b"]), "names 2 classes, and the output has 4"),
    (lambda m: m.update(classes=["a", "b", "c", "\x1b[2Jd"]), "class 3: expected a name"),
    (lambda m: m.update(classes=["a", "b", "c", "d\ne"]), "the control character U+000A"),
    (lambda m: m.update(classes=["a", "b", "c", "\u202etxt.exe"]), "the control character U+202E"),
    (lambda m: m.update(classes=["a", "b", "c", ""]), "found 0 characters"),
    (lambda m: m.update(classes=["a", "b", "c", "x" * 5000]), "found 5000 characters"),
    (lambda m: m.update({"\x1b[2J" * 9999: 1}), "unknown key '\\u001b[2J"),
    (lambda m: m.update(deploykit=[0] * 99999), "expected str, found [0"),
    (lambda m: m["engine"].update(file="nothing.onnx"), "names 'nothing.onnx', which is not among its files"),
    (lambda m: m["engine"].update(minimum="newest"), "expected a version, found 'newest'"),
    (lambda m: m["engine"].update(options=[1]), "engine.options: expected an object"),
    (lambda m: m["golden"].update(tolerance=9.0), "golden.tolerance"),
    (lambda m: m["golden"].update(tolerance="nan"), "golden.tolerance"),
    (lambda m: m["outputs"][0].update(shape=[1]), "expected one input and one output N×classes"),
    (lambda m: m["preprocess"].update(std=[0.0]), "positive stds"),
    (lambda m: m["preprocess"].update(resize=10**9), "expected a side that fits the input, found 1,000,000,000 px"),
    (lambda m: m["preprocess"].update(width=10**9), "its preprocessing makes [1, 16, 1000000000] of an image"),
    (lambda m: m["preprocess"].update(input_pixels=True), "makes [16, 16, 1] of an image, and the input is [1, 1, 16"),
    (lambda m: m["preprocess"].update(height="tall"), "expected int, found 'tall'"),
    (lambda m: m.update(name="a/../b"), "name: expected"),
]


@pytest.mark.parametrize(("change", "said"), CHANGES)
def test_a_manifest_that_contradicts_itself_is_refused(bundle: Path, change: Callable[..., object], said: str) -> None:
    edit_manifest(bundle, change)

    found = refusal(bundle)
    assert said in found
    assert found.isprintable()
    assert len(found) < 1000


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("hello")

    assert "it has no manifest.json" in refusal(tmp_path / "folder")
    assert "neither a folder nor a zip" in refusal(tmp_path / "file")
    assert "no such file or folder" in refusal(tmp_path / "nothing")


def test_a_zip_that_was_cut_off_is_refused(bundle: Path, tmp_path: Path) -> None:
    whole = zipped(bundle, tmp_path / "a.zip").read_bytes()
    for n in (len(whole) - 10, len(whole) // 2, 30):
        (tmp_path / "cut.zip").write_bytes(whole[:n])
        refusal(tmp_path / "cut.zip")
    broken = bytearray(whole)
    broken[len(whole) // 2] ^= 0xFF
    (tmp_path / "broken.zip").write_bytes(broken)
    refusal(tmp_path / "broken.zip")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limits": {"max_drop": -99.0}}, "manifest.json: accepted, and its drop is beyond its limit"),
        ({"limits": {"min_sqnr_db": 999.0}}, "manifest.json: accepted, and its SQNR is beyond its limit"),
        ({"limits": {"min_top1": 1.0}}, "manifest.json: accepted, and its top-1 is beyond its limit"),
        ({"top1": 0.5, "top1_reference": 0.99}, "manifest.json: a drop of 0 points, and its accuracies differ by 49"),
    ],
)
def test_numbers_that_contradict_each_other_are_no_bundle_s(bundle: Path, change: dict[str, Any], said: str) -> None:
    def changed(data: dict[str, Any]) -> None:
        check = data["check"]
        check["accuracy"] = {"word": "accepted", "reasons": [], "limits": []}
        check["limits"] |= change.get("limits", {})
        check |= {key: value for key, value in change.items() if key != "limits"}

    edit_manifest(bundle, changed)

    assert said in refusal(bundle)


def test_manifests_survive_writing_and_reading(bundle: Path) -> None:
    data = (bundle / "manifest.json").read_bytes()

    assert manifest.dump_manifest(manifest.parse_manifest(data, "m")).encode() == data
    assert json.loads(data)["name"] == "tiny-int8-onnxruntime"
