"""Delivery: a passport says of which checkpoint a file is, on which data it was made and checked, and the verdict."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
from page_records import page_report
from report_records import artifact
from tiny_densenet import TINY_PREPROCESS

from deploy_kit.api import line
from deploy_kit.base.errors import InputError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.cli import _deployment
from deploy_kit.recipe import overrides
from deploy_kit.records.artifacts import Artifact, Exported, Origin, Preprocess
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.passports import sealed
from deploy_kit.stages import deliver
from deploy_kit.store import Store


class Copies(Store):
    """A store that copies nothing, and remembers what a passport would say."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.said: dict[str, Origin | None] = {}

    def rejected(self, artifact: Artifact) -> bool:
        return False

    def copy_out(self, artifact: Artifact, out: Path, origin: Origin | None = None) -> Path:
        self.said[artifact.label] = origin
        return out


def test_a_passport_names_checkpoint_data_and_verdict(tmp_path: Path) -> None:
    made_by = MadeBy(calibration="calib", n_images="512", calibration_sha256="d" * 64)
    graph = artifact("int8", sha256="p" * 64, made_by=made_by)
    whole = page_report(lineage=(graph,))
    whole = replace(whole, answers=replace(whole.answers, images_sha256="e" * 64))
    store = Copies(tmp_path / "store")

    deliver.run(whole, tmp_path / "out", store)

    assert store.said.keys() == {row.label for row in whole.rows if row.judged and row.judged.word == "accepted"}
    found = store.said["int8 · onnxruntime"]
    assert found is not None
    assert (found.checkpoint, found.checkpoint_sha256) == ("some.pth", "c" * 64)
    assert (found.calibration, found.calibration_sha256) == ("calib", "d" * 64)
    assert (found.images_sha256, found.accuracy) == ("e" * 64, "accepted (drop ≤ 0.3 points)")
    assert found.drop == "top-1 +0.09 [+0.01, +0.18] points"


def test_a_passport_of_a_graph_that_saw_no_images_names_none(tmp_path: Path) -> None:
    store = Copies(tmp_path / "store")

    deliver.run(page_report(lineage=()), tmp_path / "out", store)

    found = store.said["fp32 · openvino"]
    assert found is not None and (found.calibration, found.calibration_sha256) == ("", "")


def test_files_of_the_checkpoint_that_an_earlier_run_made_for_other_engines_are_named(tmp_path: Path) -> None:
    whole = page_report(lineage=())
    store, out = Copies(tmp_path / "store"), tmp_path / "out"
    out.mkdir()
    origin = Origin(checkpoint="some.pth", checkpoint_sha256="c" * 64, accuracy="accepted", images="", n_images=1)
    for name, named in (("some-int8.plan", "some.pth"), ("some-int8.pte", "other.pth")):
        (out / name).write_bytes(b"engine")
        made = artifact("int8", path=f"build/{name}", sha256=sha256_of(out / name))
        passport = replace(made, origin=replace(origin, checkpoint=named))
        (out / f"{name}.passport.json").write_text(sealed(passport))

    found = deliver.run(whole, out, store)

    assert [path.name for path in found.earlier] == ["some-int8.plan"]


def test_what_a_limit_on_latency_rejects_is_not_delivered_and_an_earlier_file_of_it_is_named(tmp_path: Path) -> None:
    whole = page_report(lineage=())
    accepted = [row for row in whole.rows if row.judged and row.judged.word == "accepted"]
    slow = replace(accepted[0], misses=("p99 9 ms, at most 8 ms asked for",))
    missed = replace(whole, rows=tuple(slow if row is accepted[0] else row for row in whole.rows))
    store, out = Copies(tmp_path / "store"), tmp_path / "out"
    out.mkdir()
    names = [path.name for _, path in deliver.run(whole, out, store).files]
    for name in names:  # as a run with no such limit left them
        (out / name).write_bytes(b"engine")
        (out / f"{name}.passport.json").write_text("{}")

    found = deliver.run(missed, out, store)

    assert {label for label, _ in found.files} == {row.label for row in accepted[1:]}
    assert {path.name for path in found.earlier} == set(names) - {path.name for _, path in found.files}
    assert "earlier " + str(found.earlier[0]) in _deployment.text(missed, tmp_path / "report.md", found)


def test_nothing_is_delivered_beside_files_of_another_checkpoint_or_preprocessing(tmp_path: Path) -> None:
    report = page_report(lineage=())
    source = Exported(checkpoint=report.checkpoint, onnx=artifact("exported"), difference=0.0, verified_on="")
    recipe = line.with_engines(overrides.for_checkpoint("some.pth"), ("onnxruntime",), ("fp32", "fp16"))
    origin = Origin(checkpoint="some.pth", checkpoint_sha256="c" * 64, accuracy="accepted", images="", n_images=1)

    def delivered(name: str, engine: str, file: str, preprocess: Preprocess = TINY_PREPROCESS, **of: str) -> Path:
        (tmp_path / file).write_bytes(b"engine")
        made = artifact(name, engine, path=f"build/{file}", sha256=sha256_of(tmp_path / file), preprocess=preprocess)
        passport = tmp_path / f"{file}.passport.json"
        passport.write_text(sealed(replace(made, origin=replace(origin, **of))))
        return passport

    shifted = replace(TINY_PREPROCESS, mean=(0.1,))
    delivered("int8", "tensorrt", "some-int8.plan")  # of the same checkpoint and preprocessing
    delivered("fp32", "onnxruntime", "some-fp32.onnx", shifted)  # written again
    deliver.require_unmixed(recipe, source, tmp_path)

    left = delivered("fp32", "openvino", "some-fp32.xml", shifted)
    (tmp_path / "some-fp32.bin").write_bytes(b"")
    made = artifact("fp32", "openvino", path="build/some-fp32.xml", sha256=_of_both(tmp_path), preprocess=shifted)
    left.write_text(sealed(replace(made, origin=origin)))
    with pytest.raises(InputError, match=r"some-fp32\.xml: is for another preprocessing \(.*mean 0\.1") as caught:
        deliver.require_unmixed(recipe, source, tmp_path)
    for name in ("some-fp32.xml", "some-fp32.bin", "some-fp32.xml.passport.json"):
        assert str(tmp_path / name) in caught.value.hint
    assert "choose another folder: -o" in caught.value.hint and "some-fp32.onnx" not in caught.value.hint

    left.unlink()
    delivered("fp16", "onnxruntime", "other-fp16.onnx", checkpoint="other.pth", checkpoint_sha256="d" * 64)
    with pytest.raises(InputError, match=r"other-fp16\.onnx: is of another checkpoint, other\.pth"):
        deliver.require_unmixed(recipe, source, tmp_path)

    delivered("int8", "tensorrt", "some-int8.plan", checkpoint_sha256="d" * 64)
    with pytest.raises(InputError, match=r"is of another checkpoint, other\.pth, .* \(and 1 more of that kind\)"):
        deliver.require_unmixed(recipe, source, tmp_path)


def _of_both(folder: Path) -> str:
    lines = sorted(f"{name} {sha256_of(folder / name)}\n" for name in ("some-fp32.xml", "some-fp32.bin"))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
