"""Pixels down the line: export, every scheme, engines, check, layers and diagnosis of graphs that take uint8 frames."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_graphs
import torch
from stage_inputs import images_of
from tiny_densenet import TINY_PREPROCESS, TINY_SPEC, save_images, save_tiny, tiny_model

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.analysis import difference, inspection
from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.devices.links import Connection
from deploy_kit.graph import lint, onnx_file
from deploy_kit.recipe import (
    BenchTable,
    BuildEntry,
    CheckTable,
    ExportTable,
    SimplifyTable,
    SlimTable,
    SourceTable,
    Variant,
)
from deploy_kit.records.artifacts import BareInput
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import bench, build, check, export, quantize, reference, simplify, slim
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

PIXELS = dataclasses.replace(TINY_PREPROCESS, input_pixels=True)
QUICK = {"tolerance": 1e-5, "exporter": "torchscript"}
MODEL = tiny_model(dataclasses.replace(TINY_SPEC))


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory, connection: Connection) -> SimpleNamespace:
    """Export and simplify the tiny DenseNet with pixels in."""
    folder = tmp_path_factory.mktemp("pixels")
    source = SourceTable(checkpoint=str(save_tiny(folder / "tiny.safetensors", MODEL)))
    pictures = str(save_images(folder / "check.npz", 24, seed=2))
    calibration = str(save_images(folder / "calibration.npz", 20, seed=1))
    context = Context(store=Store(folder / "store"), connection=connection)
    exported, _ = export.run(source, ExportTable(**QUICK, input_pixels=True), context, images=images_of(pictures))
    lean, _ = simplify.run(exported.onnx, SimplifyTable(passes="default"), context)
    logits, _ = reference.run(source, exported.onnx.preprocess, context, images=images.open_set(pictures, PIXELS))
    return SimpleNamespace(
        source=source, pictures=pictures, calibration=calibration, context=context, exported=exported, lean=lean,
        logits=logits,
    )  # fmt: skip


def by_torch(line: SimpleNamespace) -> np.ndarray:
    (tensors,) = images.open_set(line.pictures, TINY_PREPROCESS).batches(TINY_PREPROCESS, 24)
    return MODEL(torch.from_numpy(tensors)).numpy()


def computed(line: SimpleNamespace, artifact: object, engine: str) -> np.ndarray:
    target = inference.InferenceTarget(engine=engine, path=line.context.store.path(artifact), options={})
    image_set = images.open_set(line.pictures, PIXELS)
    return inference.infer_all(line.context.connection, target, image_set, PIXELS).logits


def test_exported_graph_takes_frames_and_agrees_with_torch(line: SimpleNamespace) -> None:
    (spec,) = line.exported.onnx.inputs

    assert (spec.dtype, spec.shape) == ("uint8", (1, 16, 16, 1))
    assert line.exported.onnx.preprocess == PIXELS
    assert line.exported.difference <= 1e-5
    assert metrics.relative_difference(by_torch(line), computed(line, line.lean.onnx, "onnxruntime")) <= 1e-5


def test_inspection_says_what_the_graph_takes(line: SimpleNamespace) -> None:
    facts = dict(inspection.inspect_file(line.context.store.path(line.lean.onnx)).facts)

    assert "the graph takes the pixels, uint8 with channels last, and computes gray" in facts["from an image"]
    assert '"input_pixels":true' in facts["preprocess"]


def test_normalization_is_folded_and_held_to_its_promise(line: SimpleNamespace) -> None:
    (row,) = (row for row in line.lean.passes if row.name == "fold_normalization")

    assert (row.fired, row.refused) == (1, ())
    assert row.max_difference <= row.promise == 1e-5


def test_reference_logits_are_those_of_the_network_whatever_its_graph_takes(line: SimpleNamespace) -> None:
    image_set = images.open_set(line.pictures, TINY_PREPROCESS)

    floats, reused = reference.run(line.source, TINY_PREPROCESS, line.context, images=image_set)

    assert reused
    assert floats.sha256 == line.logits.sha256


@pytest.mark.parametrize(
    ("scheme", "engine", "floor_db"),
    [
        ("int8_portable", "onnxruntime", 15),
        ("int8_portable", "openvino", 15),
        ("int8_ort", "onnxruntime", 5),
        ("int8_nncf", "openvino", 5),
        ("fp16", "onnxruntime", 40),
    ],
)
def test_an_engine_of_every_scheme_is_checked_on_frames(
    line: SimpleNamespace, scheme: str, engine: str, floor_db: float
) -> None:
    if scheme == "int8_nncf":
        pytest.importorskip("nncf")
    variant = Variant(name=scheme, scheme=scheme)
    typed, _ = quantize.run(line.lean.onnx, variant, line.context, calibration=images_of(line.calibration))
    built, _ = build.run(typed, BuildEntry(engine=engine, variants=(scheme,)), line.context)

    report, _ = check.run(
        built, CheckTable(images=line.pictures, limits={}), line.context,
        reference=line.logits, images=images_of(line.pictures),
    )  # fmt: skip

    assert isinstance(report, ParityReport)
    assert report.sqnr_db > floor_db
    assert report.consistency is not None
    assert built.preprocess == PIXELS


def test_int8_for_tensorrt_casts_the_pixels_first(line: SimpleNamespace) -> None:
    variant = Variant(name="int8", scheme="int8_tensorrt", options={"rest": "fp32"})

    typed, _ = quantize.run(line.lean.onnx, variant, line.context, calibration=images_of(line.calibration))

    path = line.context.store.path(typed)
    assert [node.op_type for node in onnx_file.load(path).graph][:2] == ["Cast", "Transpose"]
    assert not [found for found in lint.lint_file(path, lint.LintTarget(engine="tensorrt")) if found.level == "error"]
    assert metrics.sqnr_db(by_torch(line), computed(line, typed, "onnxruntime")) > 15


def test_layers_of_graphs_with_either_input_are_held_together(line: SimpleNamespace) -> None:
    floats, _ = export.run(line.source, ExportTable(**QUICK), line.context, images=images_of(line.pictures))
    lean, _ = simplify.run(floats.onnx, SimplifyTable(passes="default"), line.context)
    one, other = (
        difference.find_subject(str(line.context.store.path(graph)), line.context.store, line.source)
        for graph in (lean.onnx, line.lean.onnx)
    )

    found, _ = difference.find_difference(one, other, line.context, images=images_of(line.pictures))

    assert found.part == ""
    assert min(row.sqnr_db for row in found.points) > 80


def test_an_onnx_file_takes_pixels_and_its_own_answers_are_the_reference(line: SimpleNamespace, tmp_path: Path) -> None:
    floats, _ = export.run(line.source, ExportTable(**QUICK), line.context, images=images_of(line.pictures))
    source = SourceTable(checkpoint=str(line.context.store.path(floats.onnx)))
    image_set = images.open_set(line.pictures, PIXELS)

    adopted, _ = export.run(
        source, ExportTable(**QUICK, input_pixels=True), line.context, images=images_of(line.pictures)
    )

    answers, _ = reference.run(source, PIXELS, line.context, images=image_set)
    again, _ = reference.run(
        SourceTable(checkpoint=str(line.context.store.path(adopted.onnx))), PIXELS, line.context, images=image_set
    )
    assert adopted.onnx.preprocess == PIXELS
    for found in (answers, again):
        with np.load(line.context.store.root / found.path) as data:
            assert metrics.relative_difference(by_torch(line), data["logits"]) < 1e-5


def test_a_graph_that_takes_pixels_is_not_given_them_twice(line: SimpleNamespace) -> None:
    source = SourceTable(checkpoint=str(line.context.store.path(line.exported.onnx)))

    with pytest.raises(InputError, match="takes pixels already"):
        export.run(source, ExportTable(**QUICK, input_pixels=True), line.context, images=images_of(line.pictures))


def test_slimming_takes_a_float_input(line: SimpleNamespace) -> None:
    with pytest.raises(InputError, match="takes pixels, and slim refits weights behind a float input") as caught:
        slim.run(line.lean.onnx, SlimTable(macs=0.9), line.context, images=images_of(line.calibration))

    assert caught.value.hint.endswith("export SLIMMED.onnx --input-pixels")


def test_a_checkpoint_that_says_it_takes_pixels_is_refused(line: SimpleNamespace, tmp_path: Path) -> None:
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "tiny.safetensors", MODEL, PIXELS)))

    with pytest.raises(InputError, match="a checkpoint takes normalized tensors") as caught:
        export.run(source, ExportTable(**QUICK), line.context, images=images_of(line.pictures))

    assert "--input-pixels" in caught.value.hint


def test_a_graph_whose_floats_are_called_pixels_is_refused(line: SimpleNamespace, tmp_path: Path) -> None:
    model = tiny_graphs.parse("g (float[N,16,16,1] x) => (float[N,16,16,1] y) { y = Relu(x) }")

    with pytest.raises(InputError, match="expected one input N×16×16×1 of uint8, found x"):
        onnx_file.expect_input(model, PIXELS, tmp_path / "model.onnx")


def test_an_engine_without_images_has_no_frames_to_time(line: SimpleNamespace) -> None:
    bare = dataclasses.replace(line.lean.onnx, preprocess=BareInput(shape=(1, 16, 16)), engine="onnxruntime")

    with pytest.raises(RequestError, match="span 'frame' begins with pixels"):
        bench.entered((bare,), BenchTable(span="frame"))


def test_frames_are_timed_with_either_input(line: SimpleNamespace) -> None:
    floats, _ = export.run(line.source, ExportTable(**QUICK), line.context, images=images_of(line.pictures))
    engines = [
        build.run(graph, BuildEntry(engine="onnxruntime", variants=("fp32",)), line.context)[0]
        for graph in (floats.onnx, line.exported.onnx)
    ]

    table = BenchTable(span="frame", rounds=2, runs=3, warmup_s=0.05)
    measured, _ = bench.run(tuple(engines), table, line.context, fresh=True)

    assert [found.span for found in measured.measurements] == ["frame", "frame"]
    for found in measured.measurements:
        assert len(found.h2d_ms) == len(found.d2h_ms) == len(found.samples_ms) == 6
