"""Small graphs with the joints of a DenseNet, drawn with lively parameters, and what it takes to quantize and run them.

Written in ONNX's text form piece by piece: each method adds a node and gives the name of its output.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import tiny_graphs

from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.machine import environment
from deploy_kit.quantization.int8 import effective_range, plan
from deploy_kit.quantization.int8 import scale_groups as grouping
from deploy_kit.quantization.int8.effective_range import Interval
from deploy_kit.quantization.int8.plan import Int8Choices, Int8Plan
from deploy_kit.quantization.int8.scale_groups import ScaleGroups
from deploy_kit.quantization.schemes import Calibration, int8_portable, int8_tensorrt
from deploy_kit.recipe import targets

SATURATES = targets.narrow_sums(environment.describe_machine().isa)
"""Whether OpenVINO adds products of uint8 and int8 in 16 bits here, where two of 8-bit weights do not fit."""

FORMS = {
    "max": (int8_portable, {}),
    "depthwise": (int8_portable, {"form": "depthwise"}),
    "narrow sums": (int8_portable, {"reduce_range": True}),
    "tensorrt": (int8_tensorrt, {"convolutions": "all", "concats": True, "rest": "fp32"}),
    "tensorrt, float concats": (int8_tensorrt, {"convolutions": "all", "rest": "fp32"}),
    "tensorrt, behind norms": (int8_tensorrt, {"rest": "fp32"}),
}


class Sketch:
    """A graph in the making, its parameters drawn from one seed; `pixels` are the sizes behind batch and channels."""

    def __init__(self, channels: int = 3, pixels: tuple[int, ...] = (8, 8), *, batch: int | str = 1, seed: int = 0):
        self.generator = np.random.default_rng(seed)
        self.pixels, self.input_shape = pixels, (batch, channels, *pixels)
        self.weights: dict[str, np.ndarray] = {}
        self.integers: list[str] = []
        self.lines: list[str] = []
        self.made = 0
        self.n_channels = {"x": channels}

    def node(self, operator: str, *inputs: str, channels: int | None = None, output: str = "", **given: Any) -> str:
        """Add any node; it keeps the channels of its first input unless told otherwise."""
        self.made += 1
        name = output or f"{operator.lower()}{self.made}"
        words = ", ".join(f"{key} = {_word(value)}" for key, value in given.items())
        self.lines.append(f"{name} = {operator}{f'<{words}>' if words else ''}({', '.join(inputs)})")
        self.n_channels[name] = self.n_channels[inputs[0]] if channels is None else channels
        return name

    def constant(self, array: Any) -> str:
        """Add float32 numbers and give their name."""
        self.made += 1
        self.weights[f"k{self.made}"] = np.asarray(array, np.float32)
        return f"k{self.made}"

    def integer(self, number: int) -> str:
        """Add one int64 as a tensor of one dimension and give its name."""
        self.made += 1
        self.integers.append(f"int64[1] i{self.made} = {{{number}}}")
        return f"i{self.made}"

    def conv(self, x: str, n: int, kernel: int = 1, *, pad: int = 0, group: int = 1, **given: Any) -> str:
        """Add a convolution to `n` channels; `gain` (n,) makes channels louder, `bias` (n,) replaces the drawn one."""
        fan_in, rank = self.n_channels[x] // group, len(self.pixels)
        gains = np.broadcast_to(given.pop("gain", 1.0), (n,)).reshape(-1, *[1] * (rank + 1))
        weight = gains * self.generator.standard_normal((n, fan_in, *[kernel] * rank)) / np.sqrt(fan_in * kernel**rank)
        bias = given.pop("bias", 0.3 * gains.reshape(-1) * self.generator.standard_normal(n))
        if pad:
            given["pads"] = [pad] * (2 * rank)
        if group != 1:
            given["group"] = group
        return self.node("Conv", x, self.constant(weight), self.constant(bias), channels=n, **given)

    def norm(self, x: str, gamma: Any = None, beta: Any = None, relu: bool = True) -> str:
        """Add a BatchNormalization, with a ReLU behind it unless told otherwise; gammas of both signs unless given."""
        n, draw = self.n_channels[x], self.generator
        gamma = draw.uniform(0.5, 1.5, n) * draw.choice([-1, 1], n) if gamma is None else np.broadcast_to(gamma, (n,))
        beta = 0.3 * draw.standard_normal(n) if beta is None else np.broadcast_to(beta, (n,))
        parts = gamma, beta, 0.2 * draw.standard_normal(n), draw.uniform(0.5, 1.5, n)
        y = self.node("BatchNormalization", x, *map(self.constant, parts))
        return self.node("Relu", y) if relu else y

    def concat(self, *parts: str) -> str:
        return self.node("Concat", *parts, channels=sum(self.n_channels[part] for part in parts), axis=1)

    def layer(self, x: str, growth: int = 4, **norm: Any) -> str:
        """Add BN-ReLU-conv1×1-ReLU-conv3×3: one dense layer, its inner BN folded."""
        inner = self.node("Relu", self.conv(self.norm(x, **norm), 2 * growth))
        return self.conv(inner, growth, 3, pad=1, gain=np.geomspace(0.1, 10, growth))

    def stem(self, n: int = 6, **given: Any) -> str:
        """Add the first convolution."""
        return self.conv("x", n, 3, pad=1, **given)

    def block(self, x: str, layers: int = 2, *, new_first: bool = False, **norm: Any) -> str:
        """Add dense layers, each concatenated to what is there: behind it, as torch does, or before it."""
        for _ in range(layers):
            new = self.layer(x, **norm)
            x = self.concat(new, x) if new_first else self.concat(x, new)
        return x

    def network(self, **norm: Any) -> str:
        """Add a stem, a block of two layers, a last BN with ReLU, and a head; gives the logits."""
        return self.head(self.norm(self.block(self.stem(), **norm), **norm))

    def head(self, x: str, classes: int = 5) -> str:
        """Add a global average pool and a Gemm; gives the logits."""
        flat = self.node("Flatten", self.node("GlobalAveragePool", x))
        weight = self.generator.standard_normal((classes, self.n_channels[x])) / np.sqrt(self.n_channels[x])
        return self.node("Gemm", flat, self.constant(weight), self.constant(np.zeros(classes)), transB=1)

    def model(self, *outputs: str, opset: int = 18) -> ir.Model:
        """Give the graph with these outputs, shapes inferred."""
        shape = ",".join(map(str, self.input_shape))
        results = ", ".join(f"float[] {name}" for name in outputs)
        integers = f"<{', '.join(self.integers)}>" if self.integers else ""
        text = f"g (float[{shape}] x) => ({results}) {integers} {{ {' '.join(self.lines)} }}"
        return tiny_graphs.parse(text, opset, **self.weights)

    def images(self, n: int, seed: int = 1) -> np.ndarray:
        """Draw normal images (n, C, …)."""
        return np.random.default_rng(seed).standard_normal((n, *self.input_shape[1:]), np.float32)


def _word(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def batches(x: np.ndarray, size: int = 1) -> Iterator[np.ndarray]:
    return (x[start : start + size] for start in range(0, len(x), size))


def calibration(x: np.ndarray, size: int = 1) -> Calibration:
    return Calibration(n_batches=len(x) // size, n_images=len(x), input_name="x", batches=lambda: batches(x, size))


def quantized(model: ir.Model, x: np.ndarray, scheme: ModuleType = int8_portable, **options: Any) -> ir.Model:
    """Apply a scheme to a graph, through files, and load what it wrote."""
    batch = model.graph.inputs[0].shape[0]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        onnx_file.save(model, source)
        scheme.SCHEME.apply(
            source, target, scheme.SCHEME.options(**options), calibration(x, batch if isinstance(batch, int) else 1)
        )
        return onnx_file.load(target)


def planned(model: ir.Model, x: np.ndarray, **choices: Any) -> Int8Plan:
    """Plan a graph's integers."""
    with tempfile.TemporaryDirectory() as folder:
        onnx_file.save(model, Path(folder) / "source.onnx")
        return plan.make_plan(
            Path(folder) / "source.onnx", Int8Choices(**{"passes": ()} | choices), lambda: batches(x), len(x)
        )


def run(model: ir.Model, x: np.ndarray, *, optimize: bool = True, without: tuple[str, ...] = ()) -> list[np.ndarray]:
    """Compute all outputs in ONNX Runtime, in batches of the graph's own size; `without` some of its passes."""
    size = model.graph.inputs[0].shape[0]
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine: sums that do not saturate
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = ir.serde.serialize_model(model).SerializeToString()
    session = onnxruntime.InferenceSession(
        data, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(without)
    )
    feed = session.get_inputs()[0].name
    parts = [session.run(None, {feed: part}) for part in batches(x, size if isinstance(size, int) else len(x))]
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def in_openvino(connection: Connection, model: ir.Model, x: np.ndarray, folder: Path) -> np.ndarray:
    """Compute the output in OpenVINO, in a process of its own: native code may crash."""
    onnx_file.save(model, folder / "graph.onnx")
    np.save(folder / "in.npy", x)
    with connection.worker() as child:
        child.ask("build", "graph", engine="openvino", onnx=str(folder / "graph.onnx"), folder=str(folder), options={})
        child.ask("open", "graph", engine="openvino", path=str(folder / "model.xml"), options={})
        child.ask("infer", "graph", inputs=str(folder / "in.npy"), outputs=str(folder / "out.npy"))
    return np.load(folder / "out.npy")


def found(model: ir.Model) -> tuple[ScaleGroups, dict[ir.Value, Interval]]:
    """Give a graph's groups and what of each activation is useful."""
    groups = grouping.find_scale_groups(model)
    return groups, effective_range.intervals(model, groups)


def value(model: ir.Model, name: str) -> ir.Value:
    """Find the activation of this name."""
    named = (v for node in model.graph for v in node.outputs if v.name == name)
    return next(named, None) or next(v for v in model.graph.inputs if v.name == name)


def nodes(model: ir.Model, *kinds: str) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type in kinds]


def array(value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def maker(value: ir.Value | None) -> ir.Node:
    assert value is not None
    node = value.producer()
    assert node is not None
    return node
