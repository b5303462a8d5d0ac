"""Tests of the passes on whole graphs as others write them: torch's exporters, tf2onnx, and nets that are no DenseNets.

Each graph goes through the passes in a recipe's order and must give, in float64, what it gave before the first of them.
A pass rounds a weight to float32 once, 2^-24 = 6e-8 of itself; the signs of the roundings are mixed and each layer
reads what the one before gives, so that the outputs move by about as much, not by as much for each layer. Seen here:
at most 7e-8 over all passes together. One channel of the first convolution that is off by a thousandth gives more than
six times the bound.
"""

import functools
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import rewriting
import tiny_graphs
import torch
from tiny_densenet import tiny_model

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.graph import onnx_file, passes
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv

pytestmark = pytest.mark.slow

BOUND = 1e-6
STANDARD = (
    "fold_constants", "drop_identities", "fold_pads", "drop_single_concats", "fold_batchnorm",
    "fold_batchnorm_into_next", "mean_to_global_pool", "pool_before_conv", "relu_after_pool", "chain_concats",
    "merge_duplicates", "remove_unused",
)  # fmt: skip
MAXED = (*STANDARD, "batchnorm_to_max")
# How often these fire depends on the copies and notes that an exporter leaves; what is left of them is in `LEFT`.
TIDYING = ("fold_constants", "drop_identities", "drop_single_concats", "merge_duplicates", "remove_unused")

# torchvision's densenet121 in its proportions: stem, four-fold bottleneck, transitions that halve.
SPEC = DenseNetSpec(
    in_channels=3,
    stem=(StemConv(channels=8, kernel=(7, 7), stride=(2, 2)),),
    stem_pool="max",
    blocks=tuple(DenseBlock(layers=layers, growth=4, bottleneck=16) for layers in (2, 4, 3)),
    transitions=(8, 12),
    heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=10),)),),
)
X = torch.zeros(1, 3, 32, 32)
OPEN = {"input": {0: "N", 2: "H", 3: "W"}, "logits": {0: "N"}}


@dataclass
class Net:
    """A graph in the making: nodes in ONNX's text form, and seeded weights."""

    lines: list[str] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    random: np.random.Generator = field(default_factory=lambda: np.random.default_rng(41))

    def node(self, call: str) -> str:
        """Add the call of an operator, give the name of its result."""
        self.lines.append(f"v{len(self.lines)} = {call}")
        return f"v{len(self.lines) - 1}"

    def weight(self, *shape: int, around: float = 0.0) -> str:
        name = f"w{len(self.weights)}"
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        self.weights[name] = around + scale * self.random.standard_normal(shape)
        return name

    def conv(self, x: str, width: int, out: int, kernel: int, attributes: str = "", *, bias: bool = False) -> str:
        inputs = [x, self.weight(out, width, kernel, kernel), *([self.weight(out)] if bias else [])]
        return self.node(f"Conv<{attributes}>({', '.join(inputs)})" if attributes else f"Conv({', '.join(inputs)})")

    def norm(self, x: str, width: int) -> str:
        scale, shift, mean = self.weight(width, around=1), self.weight(width), self.weight(width)
        self.weights[scale][::3] *= -1  # slopes of both signs
        variance = self.weight(width)
        self.weights[variance] = np.abs(self.weights[variance]) + 0.5
        return self.node(f"BatchNormalization({x}, {scale}, {shift}, {mean}, {variance})")

    def scaled(self, x: str, width: int) -> str:
        """Normalize as tf2onnx leaves it where it folded the statistics: a product and a sum."""
        scale, shift = self.weight(1, width, 1, 1, around=1), self.weight(1, width, 1, 1)
        return self.node(f"Add({self.node(f'Mul({x}, {scale})')}, {shift})")

    def relu(self, x: str) -> str:
        return self.node(f"Relu({x})")

    def dense(self, x: str, width: int, out: int) -> str:
        return self.node(f"Gemm<transB=1>({x}, {self.weight(out, width)}, {self.weight(out)})")

    def model(self, result: str, shape: str, out: str, constants: str = "", opset: int = 17) -> ir.Model:
        text = f"g (float{shape} x) => (float{out} {result}) {constants} {{ {' '.join(self.lines)} }}"
        return tiny_graphs.parse(text, opset, **self.weights)


def densenet() -> DenseNet:
    """Build the small torchvision-like net, its slopes of both signs."""
    model = tiny_model(SPEC, seed=3)
    for name, tensor in model.state_dict().items():
        if ".norm" in name and name.endswith(".weight"):
            tensor[::3] *= -1
    return model


def from_torchscript(opset: int, **options: object) -> ir.Model:
    """Export with torch's older exporter and its own settings: it folds what it can."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        names = {"input_names": ["input"], "output_names": ["logits"]}
        torch.onnx.export(densenet(), (X,), file, dynamo=False, opset_version=opset, **names, **options)
    return rewriting.inferred(ir.serde.deserialize_model(onnx.load_from_string(file.getvalue())))


def from_dynamo(opset: int, **options: bool) -> ir.Model:
    """Export with torch's newer exporter; unless told not to, it optimizes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(densenet(), (X,), dynamo=True, opset_version=opset, verbose=False, **options)
    return rewriting.inferred(program.model)


def keras(opset: int, normalize: Callable[["Net", str, int], str]) -> ir.Model:
    """Write keras.applications' DenseNet as tf2onnx does: NHWC outside, Pad of its own, the new maps behind."""
    net = Net()
    constants = "<int64[8] p3 = {0,0,3,3,0,0,3,3}, int64[8] p1 = {0,0,1,1,0,0,1,1}, int64[2] axes = {2,3}>"
    x = net.node("Pad(t, p3)")
    x = net.relu(normalize(net, net.conv(x, 3, 8, 7, "strides=[2,2]"), 8))
    x, width = net.node(f"MaxPool<kernel_shape=[3,3], strides=[2,2]>({net.node(f'Pad({x}, p1)')})"), 8
    for block, layers in enumerate((2, 3)):
        for _ in range(layers):
            new = net.conv(net.relu(normalize(net, x, width)), width, 16, 1)
            new = net.conv(net.relu(normalize(net, new, 16)), 16, 4, 3, "pads=[1,1,1,1]")
            x, width = net.node(f"Concat<axis=1>({x}, {new})"), width + 4
        if block == 0:
            x, width = net.conv(net.relu(normalize(net, x, width)), width, width // 2, 1), width // 2
            x = net.node(f'AveragePool<kernel_shape=[2,2], strides=[2,2], auto_pad="VALID">({x})')
    x = net.relu(normalize(net, x, width))
    x = net.node(f"Squeeze({net.node(f'GlobalAveragePool({x})')}, axes)")
    x = net.node(f"Add({net.node(f'MatMul({x}, {net.weight(width, 10)})')}, {net.weight(10)})")
    net.lines.insert(0, "t = Transpose<perm=[0,3,1,2]>(x)")
    return net.model(x, "[1,32,32,3]", "[1,10]", constants, opset)


def resnet() -> ir.Model:
    """Two residual blocks: convolutions with BN, one shortcut of its own, the sum of both behind."""
    net = Net()
    x = net.relu(net.norm(net.conv("x", 3, 8, 7, "strides=[2,2], pads=[3,3,3,3]"), 8))
    x = net.node(f"MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>({x})")
    for width, out, stride in ((8, 8, 1), (8, 16, 2)):
        y = net.relu(net.norm(net.conv(x, width, out, 3, f"strides=[{stride},{stride}], pads=[1,1,1,1]"), out))
        y = net.norm(net.conv(y, out, out, 3, "pads=[1,1,1,1]"), out)
        side = x if stride == 1 else net.norm(net.conv(x, width, out, 1, "strides=[2,2]"), out)
        x = net.relu(net.node(f"Add({y}, {side})"))
    x = net.node(f"ReduceMean<axes=[2,3]>({x})")
    return net.model(net.dense(net.node(f"Flatten({x})"), 16, 10), "[1,3,32,32]", "[1,10]")


def preactivated() -> ir.Model:
    """A ResNet of the second kind: BN and ReLU before each convolution, a way down whose BN has no ReLU."""
    net = Net()
    x = net.conv("x", 3, 8, 3, "pads=[1,1,1,1]")
    y = net.conv(net.relu(net.norm(x, 8)), 8, 4, 1)
    y = net.conv(net.relu(net.norm(y, 4)), 4, 8, 3, "pads=[1,1,1,1]")
    x = net.node(f"Add({x}, {y})")
    x = net.node(f"AveragePool<kernel_shape=[2,2], strides=[2,2]>({net.conv(net.norm(x, 8), 8, 16, 1, bias=True)})")
    x = net.node(f"Flatten({net.node(f'GlobalAveragePool({net.relu(net.norm(x, 16))})')})")
    return net.model(net.dense(x, 16, 10), "[1,3,16,16]", "[1,10]")


def vgg() -> ir.Model:
    net, x, width = Net(), "x", 3
    for out in (6, 8):
        for _ in range(2):
            x, width = net.relu(net.conv(x, width, out, 3, "pads=[1,1,1,1]", bias=True)), out
        x = net.node(f"MaxPool<kernel_shape=[2,2], strides=[2,2]>({x})")
    x = net.relu(net.dense(net.node(f"Flatten({x})"), 8 * 4 * 4, 12))
    return net.model(net.dense(net.node(f"Dropout({x})"), 12, 10), "[1,3,16,16]", "[1,10]")


def alexnet() -> ir.Model:
    """Local response normalization before the first pool, groups, Dropout, and an Identity of the exporter."""
    net = Net()
    x = net.relu(net.conv("x", 3, 8, 5, "strides=[2,2], pads=[2,2,2,2]", bias=True))
    x = net.node(f"LRN<size=5, alpha=0.0001, beta=0.75, bias=2.0>({x})")
    x = net.node(f"MaxPool<kernel_shape=[3,3], strides=[2,2]>({x})")
    x = net.relu(net.conv(x, 4, 8, 3, "pads=[1,1,1,1], group=2", bias=True))
    x = net.node(f"MaxPool<kernel_shape=[3,3], strides=[2,2]>({net.node(f'Identity({x})')})")
    x = net.relu(net.dense(net.node(f"Dropout({net.node(f'Flatten({x})')})"), 8 * 3 * 3, 12))
    return net.model(net.dense(net.node(f"Dropout({x})"), 12, 10), "[1,3,32,32]", "[1,10]")


def googlenet() -> ir.Model:
    """Two inceptions: a concatenation of four ReLUs, read by convolutions and by a pool."""
    net, x, width = Net(), "x", 3
    x, width = net.relu(net.conv(x, 3, 8, 3, "pads=[1,1,1,1]", bias=True)), 8
    for _ in range(2):
        a = net.relu(net.conv(x, width, 4, 1, bias=True))
        b = net.relu(net.norm(net.conv(net.relu(net.conv(x, width, 4, 1)), 4, 6, 3, "pads=[1,1,1,1]"), 6))
        c = net.relu(net.conv(net.relu(net.conv(x, width, 2, 1)), 2, 4, 5, "pads=[2,2,2,2]", bias=True))
        d = net.node(f"MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>({x})")
        d = net.relu(net.conv(d, width, 4, 1, bias=True))
        x, width = net.node(f"Concat<axis=1>({a}, {b}, {c}, {d})"), 18
    x = net.node(f"ReduceMean<axes=[-1,-2], keepdims=1>({net.node(f'AveragePool<kernel_shape=[2,2]>({x})')})")
    x = net.dense(net.node(f"Dropout({net.node(f'Flatten({x})')})"), 18, 10)
    return net.model(x, "[1,3,12,12]", "[1,10]")


MAKERS: dict[str, Callable[[], ir.Model]] = {
    "torchscript 13": lambda: from_torchscript(13),
    "torchscript 17, all axes open": lambda: from_torchscript(17, dynamic_axes=OPEN),
    "torchscript 20, nothing folded": lambda: from_torchscript(
        20, training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False
    ),
    "dynamo 18": lambda: from_dynamo(18),
    "dynamo 21, not optimized": lambda: from_dynamo(21, optimize=False),
    "tf2onnx 13": lambda: keras(13, Net.norm),
    "tf2onnx 17": lambda: keras(17, Net.norm),
    "tf2onnx 17, products and sums": lambda: keras(17, Net.scaled),
    "resnet": resnet,
    "preactivated resnet": preactivated,
    "vgg": vgg,
    "alexnet": alexnet,
    "googlenet": googlenet,
}
# 22 BNs. Torch's exporters fold ten themselves where they are let: the stem's and one of each of the nine layers. Two
# transitions have a pool, six concatenations a shorter one before them; the last BN is read by a global pool.
TORCHS = {"pool_before_conv": 2, "relu_after_pool": 1, "chain_concats": 6, "batchnorm_to_max": 11}
# 13 BNs: five layers, a transition, the last one. Keras pads before the convolution and the pool of its stem, and
# chains its concatenations itself.
KERAS = {"fold_pads": 2, "fold_batchnorm": 6, "pool_before_conv": 1, "relu_after_pool": 1, "batchnorm_to_max": 6}
FIRED = {
    "torchscript 13": TORCHS | {"mean_to_global_pool": 1},
    "torchscript 17, all axes open": TORCHS | {"mean_to_global_pool": 1},
    "torchscript 20, nothing folded": TORCHS | {"fold_batchnorm": 10, "mean_to_global_pool": 1},
    "dynamo 18": TORCHS | {"mean_to_global_pool": 1},
    "dynamo 21, not optimized": TORCHS | {"mean_to_global_pool": 1, "fold_batchnorm": 10},
    "tf2onnx 13": KERAS,
    "tf2onnx 17": KERAS,
    "tf2onnx 17, products and sums": {"fold_pads": 2, "pool_before_conv": 1, "relu_after_pool": 1},
    "resnet": {"fold_batchnorm": 6, "mean_to_global_pool": 1, "relu_after_pool": 1},
    "preactivated resnet": {
        "fold_batchnorm": 1, "fold_batchnorm_into_next": 1, "pool_before_conv": 1, "batchnorm_to_max": 1,
    },
    "vgg": {"relu_after_pool": 2},
    "alexnet": {"relu_after_pool": 1},
    "googlenet": {"fold_batchnorm": 2, "mean_to_global_pool": 1},
}  # fmt: skip
DENSE = {"Conv": 21, "BatchNormalization": 12, "Relu": 22, "Concat": 9, "MaxPool": 1, "AveragePool": 2, "Gemm": 1,
         "GlobalAveragePool": 1}  # fmt: skip
TENSORFLOW = {"Transpose": 1, "Conv": 12, "Relu": 13, "Concat": 5, "MaxPool": 1, "AveragePool": 1,
              "GlobalAveragePool": 1, "Squeeze": 1, "MatMul": 1}  # fmt: skip
LEFT = {
    "torchscript 13": DENSE | {"Flatten": 1},
    "torchscript 17, all axes open": DENSE | {"Flatten": 1},
    "torchscript 20, nothing folded": DENSE | {"Flatten": 1},
    "dynamo 18": DENSE | {"Reshape": 1},
    "dynamo 21, not optimized": DENSE | {"Reshape": 1},
    "tf2onnx 13": TENSORFLOW | {"BatchNormalization": 7, "Add": 1},
    "tf2onnx 17": TENSORFLOW | {"BatchNormalization": 7, "Add": 1},
    "tf2onnx 17, products and sums": TENSORFLOW | {"Mul": 13, "Add": 14},
    "resnet": {"Conv": 6, "Relu": 5, "MaxPool": 1, "Add": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1},
    "preactivated resnet": {
        "Conv": 4, "BatchNormalization": 2, "Relu": 3, "Add": 1, "AveragePool": 1, "GlobalAveragePool": 1, "Flatten": 1,
        "Gemm": 1,
    },
    "vgg": {"Conv": 4, "Relu": 5, "MaxPool": 2, "Flatten": 1, "Gemm": 2},
    "alexnet": {"Conv": 2, "Relu": 3, "LRN": 1, "MaxPool": 2, "Flatten": 1, "Gemm": 2},
    "googlenet": {
        "Conv": 13, "Relu": 13, "MaxPool": 2, "Concat": 2, "AveragePool": 1, "GlobalAveragePool": 1, "Flatten": 1,
        "Gemm": 1,
    },
}  # fmt: skip
# Three quarters of each transition: in · out channels · pixels, at 8×8 and 4×4 for torch's, 8×8 for Keras' DenseNet.
SAVED = {
    name: 3 * (16 * 8 * 16 + 24 * 12 * 4) if FIRED[name].items() >= TORCHS.items() else 3 * 16 * 8 * 16
    for name in FIRED
    if name.split()[0] in ("torchscript", "dynamo", "tf2onnx") and "open" not in name
}


@functools.cache
def made(name: str) -> bytes:
    """Build a graph once: tests read it, the passes get a copy of their own."""
    return ir.serde.serialize_model(MAKERS[name]()).SerializeToString()


def copy_of(name: str) -> ir.Model:
    return ir.serde.deserialize_model(onnx.load_from_string(made(name)))


def drawn(model: ir.Model) -> np.ndarray:
    """Draw an image for the graph; two of 40×36 where it leaves that open."""
    (value,) = onnx_file.inputs(model)
    dims = [side if isinstance(side, int) else wish for side, wish in zip(value.shape, (2, 3, 40, 36), strict=True)]
    return np.random.default_rng(42).standard_normal(dims).astype(np.float32)


def applied(model: ir.Model, names: tuple[str, ...] = MAXED) -> dict[str, int]:
    """Apply passes one after the other, give how often each fired, without those that only tidy up."""
    fired = {name: passes.CATALOGUE.get(name).apply(model).fired for name in names}
    return {name: times for name, times in fired.items() if times and name not in TIDYING}


@pytest.mark.parametrize("name", MAKERS)
def test_every_pass_keeps_its_promise_and_all_together_a_smaller_one(name: str) -> None:
    model = copy_of(name)
    x = drawn(model)
    first, native = rewriting.evaluate(model, x), rewriting.by_onnxruntime(model, x)
    before = first

    for step in MAXED:
        passes.CATALOGUE.get(step).apply(model)
        after = rewriting.evaluate(tiny_graphs.reread(model), x)
        assert rewriting.differences(before, after)[0] <= passes.CATALOGUE.get(step).promise, step
        before = after

    assert rewriting.differences(first, before)[0] <= BOUND
    assert rewriting.differences(native, rewriting.by_onnxruntime(model, x))[0] <= BOUND
    rewriting.verify_shapes(tiny_graphs.reread(model), x)


@pytest.mark.parametrize("name", MAKERS)
def test_every_pass_fires_where_its_pattern_is(name: str) -> None:
    assert applied(copy_of(name)) == FIRED[name]


@pytest.mark.parametrize("name", MAKERS)
def test_second_round_of_all_passes_finds_only_what_the_first_one_uncovered(name: str) -> None:
    """A convolution that went behind its pool may stand before a BN there, which folds the next time."""
    model = copy_of(name)
    applied(model)

    assert applied(tiny_graphs.reread(model)) == ({"fold_batchnorm": 1} if name == "preactivated resnet" else {})


@pytest.mark.parametrize("name", MAKERS)
def test_operators_that_are_left_are_those_of_the_net(name: str) -> None:
    """No Identity, no Dropout, no mean, no concatenation of one, nothing of the exporters' own."""
    model = copy_of(name)

    applied(model, STANDARD)

    assert onnx_file.operators(model) == LEFT[name]


@pytest.mark.parametrize("name", MAKERS)
def test_no_pass_adds_nodes_or_multiplications(name: str) -> None:
    model = copy_of(name)

    for step in MAXED:
        before = onnx_file.nodes(model), onnx_file.macs(model)
        passes.CATALOGUE.get(step).apply(model)
        assert onnx_file.nodes(model) <= before[0], step
        assert onnx_file.macs(model) <= before[1], step


@pytest.mark.parametrize("name", SAVED)
def test_transitions_of_a_densenet_lose_three_quarters_of_their_multiplications(name: str) -> None:
    model = copy_of(name)
    before = onnx_file.macs(model)

    applied(model, STANDARD)

    assert before - onnx_file.macs(model) == SAVED[name]


def test_torchs_graph_of_any_exporter_ends_as_the_same_net() -> None:
    exports = [name for name in MAKERS if name.startswith(("torchscript", "dynamo")) and "open" not in name]
    models = [copy_of(name) for name in exports]
    for model in models:
        applied(model)
    x = drawn(models[0])

    outputs = [rewriting.evaluate(model, x)[0] for model in models]

    assert len(exports) == 4
    assert all(rewriting.differences([outputs[0]], [output])[0] <= BOUND for output in outputs)


def test_torchs_graph_still_gives_torchs_answers() -> None:
    x = drawn(copy_of("dynamo 18"))
    wanted = densenet()(torch.from_numpy(x)).numpy()
    model = copy_of("dynamo 18")

    applied(model)

    assert rewriting.differences([wanted], rewriting.by_onnxruntime(model, x))[0] <= BOUND


@pytest.mark.parametrize("name", ["torchscript 13", "tf2onnx 17", "resnet", "vgg", "googlenet"])
def test_comparison_notices_the_weights_of_one_channel_that_are_off_by_a_thousandth(name: str) -> None:
    model = copy_of(name)
    x = drawn(model)
    before = rewriting.evaluate(model, x)
    applied(model)
    value = next(node for node in model.graph if node.op_type == "Conv").inputs[1]
    array = value.const_value.numpy().copy()
    array[0] *= np.float32(1.001)
    value.const_value = ir.tensor(array, name=value.name)

    assert rewriting.differences(before, rewriting.evaluate(model, x))[0] > 6 * BOUND
