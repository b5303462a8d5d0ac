"""BN + ReLU as a shifted BN whose quantizer clips: the same function, all 256 integers in use."""

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from dense_graphs import Sketch, array, maker, nodes, planned

from deploy_kit.accuracy import metrics
from deploy_kit.graph import onnx_file
from deploy_kit.quantization.int8 import saturate
from deploy_kit.quantization.int8.plan import Int8Plan


def rewritten(
    sketch: Sketch, *, kernel: int = 1, gamma: object = None, beta: object = None
) -> tuple[Int8Plan, np.ndarray, np.ndarray]:
    """Plan a BN + ReLU + convolution, rewrite it; give the plan, an image and the output before."""
    normed = sketch.norm(sketch.stem(), gamma=gamma, beta=beta)
    # The ReLU keeps the head's pool from moving before the convolution; the stem as an output, the BN from its fold.
    head = sketch.head(sketch.node("Relu", sketch.conv(normed, 5, kernel, pad=kernel // 2)))
    plan = planned(sketch.model(head, "conv3"), sketch.images(16), signed=True)
    x = sketch.images(16)
    return plan, x, in_float(plan.model, x)


def in_float(model: ir.Model, x: np.ndarray) -> np.ndarray:
    """Compute the logits with ONNX's evaluator in float64."""
    proto = onnx_file.reread(model)
    return np.concatenate([tiny_graphs.evaluate(proto, image[None])[0] for image in x])


def clipped(model: ir.Model) -> ir.Model:
    """Put the quantizer's clip, without its rounding, before the convolution that reads a BN."""
    for conv in nodes(model, "Conv"):
        source = conv.inputs[0]
        if source is not None and maker_type(source) == "BatchNormalization":
            low, high = (
                ir.Value(name=name, const_value=ir.tensor(np.float32(v), name=name)) for name, v in ENDS.items()
            )
            for end in (low, high):
                end.type, end.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(())
                model.graph.register_initializer(end)
            clip = ir.node("Clip", [source, low, high])
            clip.outputs[0].name = "clipped"
            model.graph.insert_before(conv, clip)
            conv.replace_input_with(0, clip.outputs[0])
    return model


ENDS = {"lowest": -1.0, "highest": 127 / 128}


def maker_type(value: ir.Value) -> str:
    producer = value.producer()
    return producer.op_type if producer is not None else ""


@pytest.mark.parametrize("gamma", [None, 1.1, -0.9], ids=["both signs", "positive", "negative"])
def test_the_clip_of_the_quantizer_is_the_relu(gamma: float | None) -> None:
    plan, x, before = rewritten(Sketch(), gamma=gamma)

    saturate.saturate_relus(plan)

    assert not [n for n in nodes(plan.model, "Relu") if maker(n.inputs[0]).op_type == "BatchNormalization"]
    assert metrics.relative_difference(before, in_float(clipped(plan.model), x)) < 2e-6


def test_without_the_clip_it_is_another_function() -> None:
    plan, x, before = rewritten(Sketch())

    saturate.saturate_relus(plan)

    assert metrics.relative_difference(before, in_float(plan.model, x)) > 0.01


def test_every_channel_uses_all_integers_of_the_images_it_was_planned_with() -> None:
    plan, _, _ = rewritten(Sketch())
    (conv,) = saturate.saturate_relus(plan)

    assert conv.inputs[0] is not None
    assert plan.grids[conv.inputs[0]] == saturate.UNIT
    mean = plan.moments(conv.inputs[0]).mean
    assert ((mean > -1) & (mean < 1)).all()


def test_convolution_that_pads_keeps_the_relu_and_is_exact() -> None:
    plan, x, before = rewritten(Sketch(), kernel=3)

    (conv,) = saturate.saturate_relus(plan)

    assert maker(conv.inputs[0]).op_type == "Relu"
    assert metrics.relative_difference(before, in_float(plan.model, x)) < 2e-6


def test_relu_that_two_convolutions_read_is_left() -> None:
    sketch = Sketch()
    normed = sketch.norm(sketch.stem())
    both = sketch.node("Relu", sketch.node("Add", sketch.conv(normed, 5), sketch.conv(normed, 5)))
    plan = planned(sketch.model(sketch.head(both), "conv3"), sketch.images(8), signed=True)

    assert saturate.saturate_relus(plan) == frozenset()


def test_statistics_of_the_norm_stay_so_that_half_precision_holds_its_slopes() -> None:
    plan, _, _ = rewritten(Sketch())
    before = [array(value) for norm in nodes(plan.model, "BatchNormalization") for value in norm.inputs[3:5]]

    saturate.saturate_relus(plan)

    after = [array(value) for norm in nodes(plan.model, "BatchNormalization") for value in norm.inputs[3:5]]
    for one, two in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("n_off", [4, 6], ids=["most", "all"])
def test_channels_that_are_off_ask_no_slope_that_half_precision_cannot_hold(n_off: int) -> None:
    off = np.arange(6) < n_off
    plan, _, _ = rewritten(Sketch(), gamma=np.where(off, 0.0, 1.0), beta=np.where(off, -0.5, 0.0))

    assert len(saturate.saturate_relus(plan)) == 1

    (norm,) = nodes(plan.model, "BatchNormalization")
    assert max(np.abs(array(value)).max() for value in norm.inputs[1:3]) < 1e3
