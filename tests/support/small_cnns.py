"""A small CNN as an ONNX file that another program might have written, and what such programs do to theirs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

SHAPE = (3, 12, 12)
CLASSES = 5


def small_cnn(opset: int = 17, *, ir_version: int = 8, dims: Sequence[int | str] = (1, *SHAPE)) -> onnx.ModelProto:
    """Conv + BN + ReLU, a pool, a convolution with ReLU, mean over the map, Flatten, Gemm: seeded weights."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], name="conv1", pads=[1] * 4, kernel_shape=[3, 3]),
        helper.make_node("BatchNormalization", ["c1", "gamma", "beta", "mean", "var"], ["n1"], name="norm1"),
        helper.make_node("Relu", ["n1"], ["r1"], name="relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], name="pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], name="conv2", kernel_shape=[1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["r2"], ["g"], name="mean"),
        helper.make_node("Flatten", ["g"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["logits"], name="fc", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(dims))],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [dims[0], CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights().items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def of_one_name() -> onnx.ModelProto:
    """Give all nodes one name."""
    model = small_cnn()
    for node in model.graph.node:
        node.name = "node"
    return model


def weights() -> dict[str, np.ndarray]:
    """Give the weights, seeded."""
    generator = np.random.default_rng(7)

    def draw(*shape: int) -> np.ndarray:
        return generator.standard_normal(shape).astype(np.float32) * np.float32(0.4)

    return {
        "w1": draw(8, 3, 3, 3), "gamma": draw(8) + 1, "beta": draw(8), "mean": draw(8), "var": np.abs(draw(8)) + 1,
        "w2": draw(8, 8, 1, 1), "b2": draw(8), "w3": draw(CLASSES, 8), "b3": draw(CLASSES),
    }  # fmt: skip


def by_torch(x: np.ndarray) -> np.ndarray:
    """Compute the network in torch, in float64: (N, 5)."""
    w = {name: torch.from_numpy(value).double() for name, value in weights().items()}
    maps = functional.conv2d(torch.from_numpy(x).double(), w["w1"], padding=1)
    maps = functional.batch_norm(maps, w["mean"], w["var"], w["gamma"], w["beta"], eps=1e-5)
    maps = functional.max_pool2d(functional.relu(maps), 2)
    maps = functional.relu(functional.conv2d(maps, w["w2"], w["b2"]))
    return functional.linear(maps.mean((2, 3)), w["w3"], w["b3"]).numpy()


def node_of(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    """Find a node by its name."""
    return next(node for node in model.graph.node if node.name == name)


def saved(model: onnx.ModelProto, folder: Path, name: str = "model.onnx") -> Path:
    """Write a file as it is, checked by nobody."""
    (folder / name).write_bytes(model.SerializeToString())
    return folder / name


def computed(model: onnx.ModelProto | Path, x: np.ndarray, output: str | None = None) -> np.ndarray:
    """Run a model in ONNX Runtime, node by node."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    data = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run([output or session.get_outputs()[0].name], {session.get_inputs()[0].name: x})[0]


def pixels(n: int = 1, seed: int = 0) -> np.ndarray:
    """Give `n` inputs (n, 3, 12, 12) float32 that hold whole numbers of 0 to 255."""
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE)).astype(np.float32)


# What other programs do


def weights_as_inputs(opset: int = 9) -> onnx.ModelProto:
    """List the weights among the inputs, in IR version 3, as Caffe2's files do."""
    model = small_cnn(opset, ir_version=3)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    return model


def open_sizes(*dims: int | str) -> onnx.ModelProto:
    """Leave axes of the input open, by a name or by -1."""
    return small_cnn(dims=dims or ("N", 3, "H", "W"))


def ends_in_map() -> onnx.ModelProto:
    """Classify by a 1×1 convolution behind the mean: N×5×1×1."""
    model = small_cnn()
    del model.graph.node[-2:]
    model.graph.node.append(helper.make_node("Conv", ["g", "w4", "b3"], ["logits"], name="fc"))
    model.graph.initializer.append(numpy_helper.from_array(weights()["w3"].reshape(CLASSES, 8, 1, 1), "w4"))
    return with_output(model, [1, CLASSES, 1, 1])


def with_output(model: onnx.ModelProto, dims: Sequence[int | str], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """State another shape or type of the output."""
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", kind, list(dims)))
    return model


def in_type(kind: int, opset: int = 17) -> onnx.ModelProto:
    """Store and compute in another float type, input and output too."""
    model = small_cnn(opset)
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = kind
    return model


def half_inside() -> onnx.ModelProto:
    """Compute in float16 between two Casts, with a float32 input and output."""
    model = in_type(TensorProto.FLOAT16)
    node_of(model, "conv1").input[0], node_of(model, "fc").output[0] = "narrow", "wide"
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.FLOAT16))
    model.graph.node.append(helper.make_node("Cast", ["wide"], ["logits"], to=TensorProto.FLOAT))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def reads_bytes() -> onnx.ModelProto:
    """Read uint8 pixels, and cast them before anything else."""
    model = small_cnn()
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    model.graph.node.insert(0, helper.make_node("Cast", ["x"], ["cast"], name="cast", to=TensorProto.FLOAT))
    node_of(model, "conv1").input[0] = "cast"
    return model


def two_outputs() -> onnx.ModelProto:
    """Give an auxiliary output beside the logits, first."""
    model = small_cnn()
    model.graph.node.append(helper.make_node("Gemm", ["f", "w3", "b2"], ["aux"], name="aux", transB=1))
    model.graph.node[-1].input[2] = "b3"
    model.graph.output.insert(0, helper.make_tensor_value_info("aux", TensorProto.FLOAT, [1, CLASSES]))
    model.graph.node[-1].attribute.append(helper.make_attribute("alpha", 0.5))
    return model


def stale_shapes() -> onnx.ModelProto:
    """Record shapes of another input size, as a tool leaves them that changes the size alone."""
    model = small_cnn()
    for name, dims in (("c1", [1, 8, 30, 30]), ("p1", [1, 8, 15, 15]), ("f", [4, 8])):
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
    return with_output(model, [4, CLASSES])


def with_function(levels: int = 1, calls: int = 2) -> onnx.ModelProto:
    """Put the first ReLU behind functions of the file's own: each calls the next one `calls` times."""
    model = small_cnn()
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(levels):
        operator, domain = ("Relu", "") if level == levels - 1 else (f"f{level + 1}", "own")
        names = ["a", *(f"v{index}" for index in range(1, calls)), "b"]
        body = [helper.make_node(operator, [names[index]], [names[index + 1]], domain=domain) for index in range(calls)]
        model.functions.append(helper.make_function("own", f"f{level}", ["a"], ["b"], body, imports))
    relu = node_of(model, "relu1")
    relu.op_type, relu.domain = "f0", "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model


def with_condition(*, decided: bool = True) -> onnx.ModelProto:
    """Squeeze the mean by an If, as torch's tracer writes `squeeze`: the map's own size is the condition."""
    model = small_cnn(dims=(1, *SHAPE) if decided else ("N", *SHAPE))
    axis = 2 if decided else 0
    branches = {}
    for name, node in (
        ("then_branch", helper.make_node("Squeeze", ["g", "axes"], ["then"])),
        ("else_branch", helper.make_node("Identity", ["g"], ["else"])),
    ):
        result = helper.make_empty_tensor_value_info(node.output[0])
        branches[name] = helper.make_graph([node], name, [], [result])
    nodes = [
        helper.make_node("Shape", ["r2"], ["size"], name="size"),
        helper.make_node("Gather", ["size", "axis"], ["side"], name="side"),
        helper.make_node("Equal", ["side", "one"], ["cond"], name="cond"),
        helper.make_node("If", ["cond"], ["chosen"], name="choice", **branches),
    ]
    constants = {"axes": [3], "axis": [axis], "one": [1]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, np.int64), k) for k, v in constants.items())
    at = next(index for index, node in enumerate(model.graph.node) if node.name == "flat")
    for node in reversed(nodes):
        model.graph.node.insert(at, node)
    node_of(model, "flat").input[0] = "chosen"
    return model


def shaped_weights() -> onnx.ModelProto:
    """State a weight of ones by its shape: a factor behind the first ReLU."""
    model = small_cnn()
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 8, 1, 1], np.int64), "shape"))
    value = numpy_helper.from_array(np.array([1], np.float32))
    model.graph.node.insert(3, helper.make_node("Mul", ["r1", "ones"], ["scaled"], name="factor"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["shape"], ["ones"], name="fill", value=value))
    node_of(model, "pool1").input[0] = "scaled"
    return model


def under_full_name() -> onnx.ModelProto:
    """Call ONNX's own domain by its full name."""
    model = small_cnn()
    model.opset_import[0].domain = "ai.onnx"
    for node in model.graph.node:
        node.domain = "ai.onnx"
    return model


def with_unread_input() -> onnx.ModelProto:
    """List a second input that nothing reads."""
    model = small_cnn()
    model.graph.input.append(helper.make_tensor_value_info("unread", TensorProto.FLOAT, [1]))
    return model


def dropout(training: bool | None, opset: int = 17, *, constant: bool = False) -> onnx.ModelProto:
    """Put a Dropout in front of the Gemm; its mode is a weight, a Constant node, or an input (None)."""
    model = small_cnn(opset)
    mode = numpy_helper.from_array(np.array(bool(training)), "mode")
    if training is None:
        model.graph.input.append(helper.make_tensor_value_info("mode", TensorProto.BOOL, []))
    elif constant:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["mode"], value=mode))
    else:
        model.graph.initializer.append(mode)
    model.graph.node.insert(
        len(model.graph.node) - 1, helper.make_node("Dropout", ["f", "", "mode"], ["d"], name="dropped")
    )
    node_of(model, "fc").input[0] = "d"
    return model


def training_norm(opset: int) -> onnx.ModelProto:
    """Let the BN update its statistics: by an attribute, before operator set 14 by further outputs."""
    model = small_cnn(opset)
    norm = node_of(model, "norm1")
    if opset >= 14:
        norm.attribute.append(helper.make_attribute("training_mode", 1))
        norm.output.extend(["mean.new", "var.new"])
    else:
        norm.output.extend(["mean.new", "var.new", "mean.saved", "var.saved"])
    return model


def external(folder: Path, location: str = "model.data") -> Path:
    """Save a file whose weights lie in a file beside it."""
    model = small_cnn()
    onnx.external_data_helper.convert_model_to_external_data(model, location=location, size_threshold=0)
    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def chosen_class() -> onnx.ModelProto:
    """Give the index of the largest logit instead of the logits."""
    model = small_cnn()
    node_of(model, "fc").output[0] = "scores"
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["logits"], name="best", axis=1))
    return with_output(model, [1, 1], TensorProto.INT64)


def under_two_opsets() -> onnx.ModelProto:
    """State two versions of ONNX's operators, under their two names."""
    model = small_cnn(17)
    model.opset_import.append(helper.make_opsetid("ai.onnx", 11))
    return model


def with_operator_of_its_own() -> onnx.ModelProto:
    """Define Relu as a function in ONNX's own domain: inlined it is one thing, in ONNX Runtime another."""
    model, opsets = small_cnn(17), [helper.make_opsetid("", 17)]
    model.functions.append(
        helper.make_function("", "Relu", ["a"], ["b"], [helper.make_node("Neg", ["a"], ["b"])], opsets)
    )
    return model


def ends_without_shapes() -> onnx.ModelProto:
    """Leave the shape of the output out, which follows from the operators."""
    model = small_cnn()
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return model


def with_group_norms(kind: str, opset: int) -> onnx.ModelProto:
    """Put a norm that takes its statistics from the image behind the second convolution."""
    model, at = small_cnn(opset), 5
    taken = {"num_groups": 4} if kind == "GroupNormalization" else {}
    scales = ["gamma", "beta"] if kind == "GroupNormalization" else []
    model.graph.node.insert(at, helper.make_node(kind, ["c2", *scales], ["normed"], name="norm2", **taken))
    node_of(model, "relu2").input[0] = "normed"
    return model


def with_default_in_function(stated: float | None) -> onnx.ModelProto:
    """Put a leaky ReLU behind the second convolution: a function whose slope is 0.3 where its caller states none."""
    model, opsets = small_cnn(17), [helper.make_opsetid("", 17)]
    leaky = helper.make_node("LeakyRelu", ["a"], ["b"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    default = helper.make_attribute("slope", 0.3)
    model.functions.append(helper.make_function("own", "Leaky", ["a"], ["b"], [leaky], opsets, [], [default]))
    options = {} if stated is None else {"slope": stated}
    model.graph.node.insert(5, helper.make_node("Leaky", ["c2"], ["leaked"], domain="own", **options))
    node_of(model, "relu2").op_type = "Identity"
    node_of(model, "relu2").input[0] = "leaked"
    model.opset_import.append(helper.make_opsetid("own", 1))
    return model
