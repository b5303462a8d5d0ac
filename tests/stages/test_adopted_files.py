"""Tests of `export` on ONNX files: what other programs write goes through all steps, or is refused at the first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_grids
import numpy as np
import onnx
import pytest
import small_cnns
import whole_line
from onnx import TensorProto, helper, numpy_helper
from stand_ins import PretendLink

from deploy_kit.accuracy import metrics
from deploy_kit.base import file_notes
from deploy_kit.base.errors import ExportError, InputError
from deploy_kit.context import Context
from deploy_kit.graph import onnx_file
from deploy_kit.images import ImageSource
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import ExportTable, PreprocessTable, SourceTable
from deploy_kit.records.artifacts import BareInput, Exported
from deploy_kit.stages import export, reference
from deploy_kit.store import Store

WHOLE = 1 / 255
STATED = PreprocessTable(height=12, width=12, color="rgb", mean=(0.0,) * 3, std=(WHOLE,) * 3)
FILES: dict[str, tuple[Callable[[], onnx.ModelProto], dict[str, Any]]] = {
    "open height and width": (small_cnns.open_sizes, {}),
    "batch -1": (lambda: small_cnns.open_sizes(-1, 3, 12, 12), {}),
    "opset 7": (lambda: small_cnns.small_cnn(7), {}),
    "IR 3 with weights as inputs": (small_cnns.weights_as_inputs, {}),
    "newer IR": (lambda: small_cnns.small_cnn(ir_version=14), {}),
    "stale shapes": (small_cnns.stale_shapes, {}),
    "map of 1×1": (small_cnns.ends_in_map, {}),
    "float16": (lambda: small_cnns.in_type(TensorProto.FLOAT16), {}),
    "float64": (lambda: small_cnns.in_type(TensorProto.DOUBLE), {}),
    "uint8": (small_cnns.reads_bytes, {}),
    "one of two outputs": (small_cnns.two_outputs, {"output": "logits"}),
    "an If that the size decides": (small_cnns.with_condition, {}),
    "a function of its own": (small_cnns.with_function, {}),
    "a scale stated by its shape": (small_cnns.shaped_weights, {}),
}
QUICK = ("opset 7",)


@pytest.fixture
def context(store: Store, tmp_path: Path) -> Context:
    return Context(store=store, connection=PretendLink(tmp_path, WorkerProgram().operations))


def exported(path: Path, context: Context, **source: Any) -> Exported:
    table = SourceTable(checkpoint=str(path), **({"preprocess": STATED} | source))
    return export.run(table, ExportTable(tolerance=1e-5), context, images=ImageSource(name="synthetic"))[0]


def remarks(of: Exported) -> str:
    return "; ".join(of.checkpoint.remarks)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in QUICK else [pytest.mark.slow]) for kind in FILES]
)
def test_file_goes_through_all_steps(kind: str, tmp_path: Path) -> None:
    make, source = FILES[kind]
    path = small_cnns.saved(make(), tmp_path)

    walked = whole_line.walk(path, tmp_path, sides=(12, 12), mean=(0.0,) * 3, std=(WHOLE,) * 3, **source)

    for engine in whole_line.ENGINES:
        assert walked.parity["fp32", engine].sqnr_db > 90
        assert walked.parity["int8", engine].sqnr_db > 20
    assert {name: graph.precision for name, graph in walked.graphs.items()} == {"fp32": "fp32", "int8": "int8"}


@pytest.mark.parametrize(
    "kind", ["opset 7", "IR 3 with weights as inputs", "map of 1×1", "an If that the size decides"]
)
def test_normal_form_was_run_beside_the_file_as_given(kind: str, context: Context, tmp_path: Path) -> None:
    make, source = FILES[kind]

    result = exported(small_cnns.saved(make(), tmp_path), context, **source)

    assert result.difference < 1e-6
    assert result.agreement.endswith("of the largest output off the file as given, on 4 noise tensors")


def test_half_precision_is_compared_with_its_own_run(context: Context, tmp_path: Path) -> None:
    result = exported(small_cnns.saved(small_cnns.in_type(TensorProto.FLOAT16), tmp_path), context)

    assert 0 < result.difference < 2e-2
    assert "float16 → float32 throughout, which holds every weight exactly; quantize --fp16 narrows it" in remarks(
        result
    )


def test_what_cannot_be_compared_says_so(context: Context, tmp_path: Path) -> None:
    result = exported(small_cnns.saved(small_cnns.in_type(TensorProto.DOUBLE), tmp_path), context)

    assert result.agreement == "taken with the changes above, not compared: ONNX Runtime cannot run the file as given"
    assert "float64 → float32 throughout, each weight rounded once" in remarks(result)


def test_change_that_moves_the_numbers_is_refused(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = onnx.version_converter.convert_version

    def careless(model: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raised = honest(model, version)
        tensor = next(tensor for tensor in raised.graph.initializer if tensor.name == "b3")
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float32(1.01), "b3"))
        return raised

    monkeypatch.setattr(onnx.version_converter, "convert_version", careless)

    with pytest.raises(ExportError, match=r"in normal form \(operator set 9 → 13\) it differs from the file as it was"):
        exported(small_cnns.saved(small_cnns.small_cnn(9), tmp_path), context)


def test_file_in_normal_form_is_taken_as_it_is(context: Context, tmp_path: Path) -> None:
    result = exported(small_cnns.saved(small_cnns.small_cnn(), tmp_path), context)

    assert (result.difference, result.agreement) == (0.0, "taken as it is")
    assert result.checkpoint.remarks == ("an ONNX file: its own float answers are the reference",)


def test_size_alone_opens_a_file_without_preprocessing(context: Context, tmp_path: Path) -> None:
    path = small_cnns.saved(small_cnns.open_sizes(), tmp_path)

    result = exported(path, context, preprocess=None, input=(12, 12))

    assert result.onnx.preprocess == BareInput(shape=(3, 12, 12))
    assert result.agreement == "taken with the changes above, which move no number"
    assert result.onnx.inputs[0].shape == ("N", 3, 12, 12)


def test_another_size_than_the_fixed_one_is_refused_and_not_kept(context: Context, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its input is fixed to"):
        exported(small_cnns.saved(small_cnns.small_cnn(), tmp_path), context, preprocess=None, input=(24, 24))

    assert not list(context.store.root.rglob("*.onnx"))


def test_other_output_is_another_result(context: Context, tmp_path: Path) -> None:
    path = small_cnns.saved(small_cnns.two_outputs(), tmp_path)

    first, second = (exported(path, context, output=name) for name in ("logits", "aux"))

    assert first.onnx.sha256 != second.onnx.sha256
    assert [result.onnx.outputs[0].name for result in (first, second)] == ["logits", "aux"]


def test_reference_logits_are_of_the_output_that_was_chosen(context: Context, tmp_path: Path) -> None:
    path = small_cnns.saved(small_cnns.two_outputs(), tmp_path)
    source = SourceTable(checkpoint=str(path), preprocess=STATED, output="aux")
    images = ImageSource(name="synthetic").open(STATED.record())

    answers, _ = reference.run(source, STATED.record(), context, images=images)

    x = next(images.batches(STATED.record(), images.n))
    with np.load(context.store.root / answers.path) as data:
        found = data["logits"]
    b3 = small_cnns.weights()["b3"]
    assert metrics.relative_difference((small_cnns.by_torch(x) - b3) / 2 + b3, found) < 1e-5


def test_weights_beside_the_file_are_part_of_the_result(context: Context, tmp_path: Path) -> None:
    path = small_cnns.external(tmp_path)
    first = exported(path, context)
    data = bytearray((tmp_path / "model.data").read_bytes())
    data[2] ^= 0x10
    (tmp_path / "model.data").write_bytes(data)

    second = exported(path, context)

    assert first.onnx.sha256 != second.onnx.sha256


@pytest.mark.parametrize(("fill", "says"), [(0.0, "all zero"), (np.nan, "not finite")])
def test_outputs_that_compare_with_nothing_are_refused(
    fill: float, says: str, context: Context, tmp_path: Path
) -> None:
    model = small_cnns.small_cnn()
    for tensor in model.graph.initializer:
        if tensor.name in ("w3", "b3"):
            shape = tuple(tensor.dims)
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(shape, fill, np.float32), tensor.name))

    with pytest.raises(InputError, match=f"its outputs are {says} on seeded noise") as caught:
        exported(small_cnns.saved(model, tmp_path), context)

    assert "export it again" in caught.value.hint


def test_map_as_output_is_taken(context: Context, tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("r2", TensorProto.FLOAT, [1, 8, 6, 6]))

    result = exported(small_cnns.saved(model, tmp_path), context)

    assert result.onnx.outputs[0].shape == (1, 8, 6, 6)


def test_half_precision_behind_float_inputs_is_taken_with_a_remark(context: Context, tmp_path: Path) -> None:
    result = exported(small_cnns.saved(small_cnns.half_inside(), tmp_path), context)

    assert result.onnx.precision == "fp16"
    assert "its weights are fp16: it can be built, timed and checked; quantize takes the float32 file" in remarks(
        result
    )


def test_exported_file_says_how_its_images_are_prepared(context: Context, tmp_path: Path) -> None:
    result = exported(small_cnns.saved(small_cnns.reads_bytes(), tmp_path), context)

    kept = onnx_file.load(context.store.path(result.onnx))
    assert onnx_file.preprocess(kept) == STATED.record()


@pytest.mark.parametrize(("divisor", "fits"), [(1, False), (2, True)])
def test_whether_sums_fit_is_said_by_the_weights_and_not_by_a_note(
    divisor: int, fits: bool, context: Context, tmp_path: Path
) -> None:
    file = foreign_grids.FORMS["onnxruntime: a scale per channel"](tmp_path)
    proto = onnx.load(file)
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) > 1:
            whole = numpy_helper.to_array(tensor) // divisor
            tensor.CopyFrom(numpy_helper.from_array(whole.astype(np.int8), tensor.name))
    if not fits:
        helper.set_model_props(proto, {file_notes.SUMS_FIT: "1"})
    onnx.save(proto, file)
    sides = foreign_grids.SHAPE[1:]
    stated = PreprocessTable(height=sides[0], width=sides[1], color="rgb", mean=(0.0,) * 3, std=(WHOLE,) * 3)

    made = exported(file, context, preprocess=stated)

    assert file_notes.sums_fit(context.store.path(made.onnx)) is fits
