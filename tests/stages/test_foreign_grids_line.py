"""Tests of files that another program quantized, over the whole line: export, simplify, build, check.

What a file computes is said by ONNX's reference evaluator, and by ONNX Runtime without its optimizer.
"""

import json
from pathlib import Path

import foreign_grids
import numpy as np
import onnx
import pytest
import small_cnns
import whole_line
from command_line import deploykit
from dense_graphs import SATURATES
from foreign_grids import FORMS, IN_FLOAT, REFUSED

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import BuildError

QUICK = ("onnxruntime: a scale per channel", "pytorch-quantization", "Brevitas QCDQ")
SERVED = [
    pytest.param(form, marks=[] if form in QUICK else [pytest.mark.slow]) for form in FORMS if form not in REFUSED
]
# Sums in another order, and biases as multiples of both steps, put results at the edge of two steps on the other one.
LEAST_DB = 40


@pytest.mark.parametrize("form", SERVED)
def test_grids_of_another_program_go_through_the_whole_line(form: str, tmp_path: Path) -> None:
    file, x = FORMS[form](tmp_path), foreign_grids.inputs(4, seed=5)

    walked = whole_line.walk_typed(file, tmp_path, sides=foreign_grids.SHAPE[1:])

    lean = walked.store.path(walked.graph)
    assert walked.graph.precision == "int8"
    assert metrics.sqnr_db(foreign_grids.by_reference(file, x), small_cnns.computed(lean, x)) > LEAST_DB
    np.testing.assert_array_equal(small_cnns.computed(file, x), small_cnns.computed(lean, x))
    for engine in whole_line.ENGINES:
        if engine in IN_FLOAT.get(form, ()):
            assert isinstance(walked.built[engine], BuildError)
            assert "carries int8, and" in str(walked.built[engine])
            continue
        parity, (built, proof) = walked.parity[engine], walked.built[engine]
        if not (engine == "openvino" and SATURATES):
            assert parity.sqnr_db > LEAST_DB
        assert sum(n for kind, dtype, n in proof.counts if (kind, dtype) == ("Conv", "int8")) >= (
            1 if "asymmetric weights" in form else 3
        )
        if engine == "onnxruntime":
            kept = foreign_grids.scales(onnx.load(built))
            assert kept <= foreign_grids.scales(onnx.load(file))


def test_engine_of_openvino_would_be_wrong_without_the_layout_of_its_target(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="pip install openvino")
    file, x = FORMS["ModelOpt, stored weights"](tmp_path), foreign_grids.inputs(4, seed=5)

    as_given = openvino.Core().compile_model(openvino.Core().read_model(str(file)), "CPU")(x)[0]

    assert metrics.sqnr_db(foreign_grids.by_reference(file, x), as_given) < 25


def test_deployment_calls_it_by_its_precision_and_holds_the_other_engine_against_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = FORMS["onnxruntime: a scale per channel"](tmp_path)
    whole_line.save_photos(tmp_path / "check.npz", 16, sides=(foreign_grids.SHAPE[1], foreign_grids.SHAPE[2]), seed=2)
    given = ("--images", "check.npz", "--mean", "0,0,0", "--std", "1,1,1", "--max-drop", "90pt", "--allow-invalid")

    said = deploykit("deploy", str(file), *given, "--json", "-o", "out")

    assert said.code in (0, 6), said.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    labels = [row["label"] for row in report["rows"]]
    assert labels == ["int8-given · onnxruntime", "int8-given · openvino"]
    assert "no speed-ups" not in said.err
    assert all(row["measurement"]["label"] == row["label"] for row in report["rows"])
    assert report["rows"][1]["speed_up"]["baseline"] == "int8-given · onnxruntime"
