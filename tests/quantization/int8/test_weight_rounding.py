"""Weights chosen by what is read: both layouts come nearer, and their graphs keep their form."""

import dataclasses
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from dense_graphs import FORMS, Sketch, array, batches, nodes, planned, quantized, run
from dense_networks import FLOOR_DB, LOWER_DB, NETWORKS

from deploy_kit.accuracy import metrics
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.quantization.int8 import input_patches, weight_rounding

every_form = pytest.mark.parametrize("form", FORMS)
PLAIN = ("plain", "open batch", "1-D", "3-D", "grouped convolutions", "dead channels", "gamma -1, beta 20")
NO_NORM = {("grouped convolutions", "tensorrt, behind norms")}  # none stands before a convolution that is not grouped


def written(sketch: Sketch, model: ir.Model, form: str, **options: Any) -> ir.Model:
    scheme, given = FORMS[form]
    return quantized(model, sketch.images(24), scheme, **(given | options))


def form_of(model: ir.Model) -> list[tuple[str, tuple[int, ...]]]:
    """List the nodes, and the shapes of the constants."""
    found = [(node.op_type, ()) for node in model.graph]
    found += [(f"{value.dtype}", tuple(value.const_value.shape)) for value in model.graph.initializers.values()]
    return sorted(found)


def integers(model: ir.Model) -> np.ndarray:
    """Give the integer weights of all nodes, one after another."""
    read = [node.inputs[0] for node in nodes(model, "DequantizeLinear") if node.inputs[0].const_value is not None]
    return np.concatenate([array(value).astype(int).reshape(-1) for value in read if value.dtype == ir.DataType.INT8])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in PLAIN for form in FORMS if (name, form) not in NO_NORM]
)
def test_graph_keeps_its_form(name: str, form: str) -> None:
    network = NETWORKS[name]()

    first, second = (written(network.sketch, network.model(), form, rounding=r) for r in ("nearest", "descent"))

    assert form_of(first) == form_of(second)


@every_form
def test_some_weights_differ_and_by_few_steps(form: str) -> None:
    network = NETWORKS["plain"]()

    first, second = (written(network.sketch, network.model(), form, rounding=r) for r in ("nearest", "descent"))

    off = np.abs(integers(first) - integers(second))
    assert 0 < (off > 0).mean() < 0.8
    assert off.max() < 20


def test_each_weight_that_is_chosen_is_a_step_of_the_progress() -> None:
    network = NETWORKS["plain"]()
    heard: list[ProgressEvent] = []
    plan = dataclasses.replace(planned(network.model(), network.sketch.images(8)), on_progress=heard.append)
    convolutions = [node for node in nodes(plan.model, "Conv") if node.inputs[0] in plan.grids]
    rows = {node: weight_rounding.Rows(weights=array(node.inputs[1]), scales=np.ones(1)) for node in convolutions}

    chosen = weight_rounding.rounded_weights(plan, rows)

    assert [(event.done, event.total) for event in heard] == [(done, len(chosen)) for done in range(len(chosen))]
    assert chosen


def test_sampled_patches_are_what_torch_unfolds_of_the_integers() -> None:
    sketch = Sketch()
    inner = sketch.node("Relu", sketch.conv("x", 6))
    model = sketch.model(inner, sketch.conv(inner, 4, 3, pad=1))
    plan = planned(model, sketch.images(5))
    conv = nodes(plan.model, "Conv")[1]
    grid = plan.grids[conv.inputs[0]]
    entry = input_patches.sampled_inputs(conv, grid, 6 * 9)
    assert entry is not None

    (sample,) = input_patches.sample_patches(ir.serde.serialize_model(plan.model), [entry], plan.batches, 5)

    read = torch.from_numpy(grid.real(grid.quantize(run(model, sketch.images(5))[0])))
    wanted = torch.nn.functional.unfold(read, 3, padding=1).transpose(1, 2).reshape(5 * 64, 54).numpy()
    off = np.abs(sample.read - wanted)  # 2,048 are wanted, there are 64 pixels an image: all of them, in order
    assert (off > grid.scale / 2).mean() < 1e-3  # float32 may round a tie to the other side
    assert off.max() < 1.01 * grid.scale
    floats = torch.nn.functional.unfold(torch.from_numpy(run(model, sketch.images(5))[0]), 3, padding=1)
    np.testing.assert_allclose(sample.mean, floats.mean((0, 2)).numpy(), atol=1e-6)


def test_sample_is_bounded_and_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_patches, "N_PATCHES", 50)
    sketch = Sketch()
    model = sketch.model(sketch.conv(sketch.conv("x", 6), 4, 3, pad=1))
    plan = planned(model, sketch.images(5))
    reads = [
        input_patches.sampled_inputs(node, plan.grids[node.inputs[0]], array(node.inputs[1])[0].size)
        for node in nodes(plan.model, "Conv")
    ]
    wanted = [entry for entry in reads if entry is not None]

    def sampled() -> list[np.ndarray]:
        return [
            sample.read
            for sample in input_patches.sample_patches(ir.serde.serialize_model(plan.model), wanted, plan.batches, 5)
        ]

    first, second = sampled(), sampled()
    monkeypatch.setattr(input_patches, "_BYTES", 1)  # a pass for each

    assert [len(found) for found in first] == [50, 50]
    for one, other, apart in zip(first, second, sampled(), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.shape == apart.shape


@pytest.mark.parametrize(("n_images", "batch", "n_patches"), [(3, 1, 9), (37, 1, 10), (36, 6, 12), (8, 8, 8)])
def test_sample_does_not_grow_with_the_images(
    n_images: int, batch: int, n_patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of four images are wanted; whole batches, and as many of each image, are taken."""
    monkeypatch.setattr(input_patches, "N_PATCHES", 8)
    monkeypatch.setattr(input_patches, "N_IMAGES", 4)
    sketch = Sketch(batch="N")
    plan = planned(sketch.model(sketch.conv("x", 6)), sketch.images(n_images))
    (conv,) = nodes(plan.model, "Conv")
    entry = input_patches.sampled_inputs(conv, plan.grids[conv.inputs[0]], array(conv.inputs[1])[0].size)
    assert entry is not None
    x = sketch.images(n_images)

    (sample,) = input_patches.sample_patches(
        ir.serde.serialize_model(plan.model), [entry], lambda: batches(x, batch), n_images
    )

    assert len(sample.read) == n_patches


def test_grouped_convolutions_are_not_sampled() -> None:
    sketch = Sketch(channels=4)
    plan = planned(sketch.model(sketch.conv("x", 4, group=2)), sketch.images(3))
    conv = nodes(plan.model, "Conv")[0]

    assert input_patches.sampled_inputs(conv, plan.grids[conv.inputs[0]], 2) is None
    assert (
        weight_rounding.rounded_weights(
            plan, {conv: weight_rounding.Rows(weights=array(conv.inputs[1]), scales=np.ones(4))}
        )
        == {}
    )


@pytest.mark.slow
@pytest.mark.parametrize("rounding", ["nearest", "descent"])
@pytest.mark.parametrize("correction", [False, True])
@pytest.mark.parametrize(
    "name", ["dead channels", "gamma 0, beta 0.3", "gamma -1, beta 20", "bounds beyond the grid before an average pool"]
)
def test_constants_are_kept_under_every_option(name: str, correction: bool, rounding: str) -> None:
    network = NETWORKS[name]()
    x = network.sketch.images(12, seed=9)

    made = quantized(network.model(), network.sketch.images(24), bias_correction=correction, rounding=rounding)

    floor = LOWER_DB.get(name, FLOOR_DB) - (0 if correction else 8)  # rounded bounds are off on average
    assert metrics.sqnr_db(run(network.model(), x, optimize=False)[0], run(made, x)[0]) > floor
