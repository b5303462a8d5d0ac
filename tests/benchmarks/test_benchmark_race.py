"""A whole race of two small files: every sample is there, and a file that cannot be loaded gets its reason."""

import numpy as np
import pytest

from benchmarks import race, roofline, subjects
from benchmarks.candidates import Candidate, Stock
from benchmarks.race import Plan
from benchmarks.records import Race
from benchmarks.workshop import Made

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Race:
    folder = tmp_path_factory.mktemp("race")
    image = folder / "image.npy"
    np.save(image, np.zeros((1, 8, 4, 4), np.uint8))
    roofline._write(folder / "probe.onnx", 8, 4)
    (folder / "broken.onnx").write_bytes(b"\x08\x08 not a model")
    made = [
        Made(candidate=Candidate(name=name, file=Stock(recipe="raw"), engine=engine), path=folder / file, image=image)
        for name, engine, file in (
            ("probe@ort", "onnxruntime", "probe.onnx"),
            ("probe@ov", "openvino", "probe.onnx"),
            ("broken@ort", "onnxruntime", "broken.onnx"),
        )
    ]
    plan = Plan(recompiles=2, rounds=3, runs=4, threads=1)
    return race.of_files("Tiny", subjects.demo(), made, folder, plan)


def test_every_run_of_every_round_and_process_is_there(found: Race) -> None:
    shapes = {entry.name: np.array(entry.samples_ms).shape for entry in found.entries}

    assert shapes == {"probe@ort": (2, 3, 4), "probe@ov": (2, 3, 4), "broken@ort": (0,)}


def test_times_are_above_zero(found: Race) -> None:
    assert all(np.array(entry.samples_ms).min() > 0 for entry in found.entries if entry.samples_ms)


def test_a_file_that_does_not_load_has_its_reason_without_folders(found: Race) -> None:
    broken = found.entries[2]

    assert broken.why.startswith("failed: broken.onnx: ")


def test_settings_are_what_the_engine_ran_with(found: Race) -> None:
    assert dict(found.entries[0].settings)["threads"] == "1"
    assert dict(found.entries[1].settings)["inference_precision"] == "f32"
