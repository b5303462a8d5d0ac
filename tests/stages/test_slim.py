"""The stage `slim`: what it keeps, marks and refuses."""

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from slim_graphs import chained
from stage_inputs import images_of

from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.recipe import SlimTable, Variant
from deploy_kit.records import codec
from deploy_kit.records.slimming import ChannelCurves, Price, Slimmed
from deploy_kit.stages import quantize, slim
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


@pytest.fixture
def context(kept: Store, connection: Connection) -> Context:
    return Context(store=kept, connection=connection)


def slimmed(line: "Line", context: Context, macs: float, step: int = 4) -> tuple[Slimmed, bool]:
    images = images_of(line.recipe.quantize.calibration)
    return slim.run(line.lean, SlimTable(macs=macs, step=step), context, images=images)


@pytest.mark.slow
def test_all_of_the_multiply_accumulates_leave_the_file_byte_for_byte(line: "Line", context: Context) -> None:
    found, _ = slimmed(line, context, 1.0)

    assert found.onnx.sha256 == line.lean.sha256
    assert found.onnx.made_by.slimmed == ""
    assert found.share == 1


@pytest.mark.slow
def test_a_slimmed_graph_is_marked_in_passport_and_file_down_to_int8(line: "Line", context: Context) -> None:
    found, reused = slimmed(line, context, 0.8)
    integers, _ = quantize.run(
        found.onnx,
        Variant(name="int8", scheme="int8_ort"),
        context,
        calibration=images_of(line.recipe.quantize.calibration),
    )

    assert not reused
    assert slimmed(line, context, 0.8) == (found, True)
    model = onnx_file.load(context.store.path(found.onnx))
    assert found.macs_after == onnx_file.macs(model) <= 0.8 * found.macs_before
    assert found.macs_before == onnx_file.macs(onnx_file.load(context.store.path(line.lean)))
    assert "another network than the checkpoint's" in found.words
    for artifact in (found.onnx, integers):
        assert ("slimmed", found.words) in artifact.made_by.rows
        said = onnx_file.load(context.store.path(artifact)).metadata_props[onnx_file.SLIMMED_KEY]
        assert json.loads(said)["macs_after"] == found.macs_after
    assert codec.from_json(Slimmed, json.loads(codec.canonical_json(found))) == found


@pytest.mark.slow
def test_curves_serve_every_budget(line: "Line", context: Context) -> None:
    slimmed(line, context, 0.9)
    slimmed(line, context, 0.8)

    (curves,) = context.store.all(ChannelCurves, "slim")

    assert [curve.name for curve in curves.curves] == [
        f"denseblock{block}.denselayer{layer}" for block in (1, 2) for layer in (1, 2)
    ]
    with np.load(context.store.root / curves.path) as held:
        assert [held[name].shape for name in held.files] == [(4, 4)] * 4
    assert slim.measured(line.lean, context, images=images_of(line.recipe.quantize.calibration)) == (curves, True)


@pytest.mark.slow
def test_an_engine_that_runs_here_prices_its_layers_by_measured_times(line: "Line", context: Context) -> None:
    images = images_of(line.recipe.quantize.calibration)
    table = SlimTable(macs=0.8, step=4, target="onnxruntime")

    found, _ = slim.run(line.lean, table, context, images=images)

    (price,) = context.store.all(Price, "slim")
    assert price.unit == "ms"
    assert all(0 < fixed < 10 for fixed in price.fixed)
    assert all(0 <= each * found.macs_before < 100 for each in price.each)
    assert price.source.startswith("onnxruntime, int8, ")
    assert found.price == price.words
    assert found.macs_after <= 0.8 * found.macs_before
    assert slim.run(line.lean, table, context, images=images) == (found, True)  # the table decides, not a new race


@pytest.mark.parametrize(("target", "why"), [("reference", "does not time its layers"), ("ncnn", "takes no int8")])
def test_an_engine_that_cannot_be_timed_leaves_the_price_to_macs(
    line: "Line", context: Context, target: str, why: str
) -> None:
    told = list[str]()
    heard = replace(context, on_progress=lambda event: told.append(event.text))
    images = images_of(line.recipe.quantize.calibration)
    assert images is not None

    price = slim.priced(
        line.lean, SlimTable(macs=0.8, target=target), chained(0), heard, images=images.open(line.lean.preprocess)
    )

    assert told == [f"layers are priced by their multiply-accumulates: '{target}' {why}"]
    assert price.words == "multiply-accumulates"


@pytest.mark.parametrize("name", [None, "synthetic"])
def test_noise_is_refused(line: "Line", context: Context, name: str | None) -> None:
    with pytest.raises(InputError, match="noise would give wrong ones") as refused:
        slim.run(line.lean, SlimTable(macs=0.8), context, images=images_of(name))

    assert "--calibration FOLDER" in refused.value.hint


def test_a_quantized_graph_is_refused(line: "Line", context: Context) -> None:
    with pytest.raises(InputError, match="expected a float32 graph, found int8"):
        slim.run(line.graph("int8"), SlimTable(macs=0.8), context, images=images_of("synthetic"))
