"""Channels cut out of an ONNX graph: rows of the producer, parameters between, columns of the reader."""

import json
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from deploy_kit.graph import edit, onnx_file
from deploy_kit.slimming.bottlenecks import Bottleneck, find_bottlenecks


def narrow(model: ir.Model, place: Bottleneck, kept: Sequence[int]) -> None:
    """Keep these channels alone; every node gets parameters of its own, which no other reads.

    Args:
        model: The graph of the place.
        place: Where.
        kept: Channels in ascending order.
    """
    producer, reader = place.producer, place.reader
    gone = sorted(set(range(place.channels)) - set(kept))
    without(model, producer, (1, 2), gone)
    for node in place.between:
        if node.op_type == "BatchNormalization":
            without(model, node, range(1, 5), gone)
    _put(model, reader, 1, np.delete(_plain(reader.inputs[1]), gone, 1))


def narrow_all(model: ir.Model, kept: Sequence[Sequence[int]]) -> tuple[Bottleneck, ...]:
    """Keep these channels alone at each place; returns the places as they were found."""
    places, _ = find_bottlenecks(model)
    for place, channels in zip(places, kept, strict=True):
        if len(channels) < place.channels:
            narrow(model, place, channels)
    return places


def forget_shapes(model: ir.Model) -> ir.Model:
    """Remove the shapes of activations, which are inferred anew."""
    results = set(model.graph.outputs)
    for node in model.graph:
        for value in node.outputs:
            if value not in results:
                value.shape = None
    return model


def without(model: ir.Model, node: ir.Node, inputs: Iterable[int], channels: Sequence[int]) -> None:
    """Cut channels out of those of a node's parameters that it has."""
    for at in inputs:
        if at < len(node.inputs) and node.inputs[at] is not None:
            _put(model, node, at, np.delete(_plain(node.inputs[at]), channels, 0))


def own_parameters(model: ir.Model, node: ir.Node) -> None:
    """Give a convolution or Gemm a weight that no other node reads, and a bias, 0 where it had none."""
    weight = _plain(node.inputs[1])
    n = weight.shape[1] if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else len(weight)
    bias = edit.bias(node, n)
    _put(model, node, 1, weight)
    node.resize_inputs(3)
    _put(model, node, 2, bias)


def set_parameters(node: ir.Node, weights: np.ndarray, bias: np.ndarray) -> None:
    """Write the parameters of a node that has its own (`own_parameters`)."""
    for value, array in zip(node.inputs[1:3], (weights, bias), strict=True):
        assert value is not None
        assert value.const_value is not None
        value.const_value = ir.Tensor(array.astype(np.float32), name=value.name)
        value.shape = ir.Shape(array.shape)


def mark(model: ir.Model, macs_before: int, macs_after: int, channels: Mapping[str, tuple[int, int]]) -> None:
    """Write into the file that it is another network than the checkpoint's."""
    model.metadata_props.pop("deploykit.densenet", None)  # describes the network before
    text = {"macs_before": macs_before, "macs_after": macs_after, "channels": channels}
    model.metadata_props[onnx_file.SLIMMED_KEY] = json.dumps(text, sort_keys=True)


def _plain(value: ir.Value | None) -> np.ndarray:
    assert value is not None
    assert value.const_value is not None
    return np.asarray(value.const_value.numpy())


def _put(model: ir.Model, node: ir.Node, index: int, array: np.ndarray) -> None:
    old = node.inputs[index]
    name = f"{node.outputs[0].name}.{'weight' if index == 1 else 'bias'}" if old is None else str(old.name)
    node.replace_input_with(index, edit.initializer(model, f"{name}.slim", array, ir.DataType.FLOAT))
