"""Networks with one peculiarity each that an INT8 layout must survive: name → what draws it."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from dense_graphs import FORMS, Sketch, quantized, run

from deploy_kit.accuracy import metrics


@dataclass(frozen=True)
class Network:
    """A graph and the images for it."""

    sketch: Sketch
    outputs: tuple[str, ...]
    opset: int = 18

    def model(self) -> ir.Model:
        """Give the float graph, a fresh one at each call."""
        return self.sketch.model(*self.outputs, opset=self.opset)


NETWORKS: dict[str, Callable[[], Network]] = {}
# One rounding to 8 bits of a range of 8 σ is 41 dB; these have up to a dozen in a row, on maps of a hundredfold gain.
FLOOR_DB = 30.0
# No average over pixels makes up for their rounding, and the range of one tensor is that of the loudest pixel.
LOWER_DB = {"pixels flattened": 20.0, "pixels reshaped": 20.0}


def named(name: str) -> Callable[[Callable[[], Network]], Callable[[], Network]]:
    def keep(draw: Callable[[], Network]) -> Callable[[], Network]:
        NETWORKS[name] = draw
        return draw

    return keep


def whole(sketch: Sketch, opset: int = 18, **norm: object) -> Network:
    return Network(sketch, (sketch.network(**norm),), opset)


def ended(sketch: Sketch, *blocks: str, **norm: object) -> Network:
    """Add a last BN with ReLU and a head behind each block."""
    return Network(sketch, tuple(sketch.head(sketch.norm(block, **norm)) for block in blocks))


named("plain")(lambda: whole(Sketch()))
named("batch of 3")(lambda: whole(Sketch(batch=3)))
named("open batch")(lambda: whole(Sketch(batch="N")))
named("1-D")(lambda: whole(Sketch(pixels=(32,))))
named("3-D")(lambda: whole(Sketch(pixels=(6, 6, 6))))
named("operator set 13")(lambda: whole(Sketch(), 13))
named("operator set 21")(lambda: whole(Sketch(), 21))
named("negative gammas")(lambda: whole(Sketch(), gamma=-0.9))
named("positive gammas")(lambda: whole(Sketch(), gamma=1.1))


def _odd_gammas(gamma: float, beta: float) -> Callable[[], Network]:
    """Every other channel of the last BN has this slope and offset."""

    def draw() -> Network:
        sketch = Sketch()
        block = sketch.block(sketch.stem())
        slopes, offsets = np.linspace(0.5, 1.5, 14), np.linspace(-0.3, 0.3, 14)
        slopes[::2], offsets[::2] = gamma, beta
        return Network(sketch, (sketch.head(sketch.conv(sketch.norm(block, gamma=slopes, beta=offsets), 7)),))

    return draw


# γ ≈ 0: a constant. |β| ≫ |γ|: the threshold −β/γ lies far outside of any grid, the channel is always off or linear.
for _gamma, _beta in [(g, b) for g in (0, 1e-8, -1e-8) for b in (0.3, -0.3)] + [
    (g, b) for g in (1, -1) for b in (20, -20)
]:
    named(f"gamma {_gamma:g}, beta {_beta:g}")(_odd_gammas(_gamma, _beta))


@named("new maps first")
def _() -> Network:
    sketch = Sketch(seed=1)
    return ended(sketch, sketch.block(sketch.stem(), new_first=True))


@named("dead channels")
def _() -> Network:
    sketch = Sketch()
    return ended(sketch, sketch.block(sketch.stem(6, gain=[0, 0, 1, 1, 0, 3], bias=[0, 0.5, 0, 0.1, -0.5, 0])))


@named("constant channels with a large bias")
def _() -> Network:
    sketch = Sketch()
    return ended(sketch, sketch.block(sketch.stem(6, gain=[1e-6] * 3 + [1] * 3, bias=[5, -5, 3, 0, 0, 1])))


@named("ReLU inside a concatenation")
def _() -> Network:
    sketch = Sketch()
    return ended(sketch, sketch.block(sketch.node("Relu", sketch.stem())))


@named("ReLU behind a ReLU")
def _() -> Network:
    sketch = Sketch()
    return ended(sketch, sketch.block(sketch.node("Relu", sketch.node("Relu", sketch.stem()))))


@named("ReLU before the stem's pool")
def _() -> Network:
    sketch = Sketch()
    pool = sketch.node("MaxPool", sketch.node("Relu", sketch.stem()), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return ended(sketch, sketch.block(pool))


@named("ReLU behind the stem's pool")
def _() -> Network:
    sketch = Sketch()
    pool = sketch.node("MaxPool", sketch.stem(), kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return ended(sketch, sketch.block(sketch.node("Relu", pool)))


def _transition(opset: int = 18, **moves: object) -> Callable[[], Network]:
    def draw() -> Network:
        sketch = Sketch(pixels=(9, 9))
        rectified = sketch.norm(sketch.block(sketch.stem()))
        pool = sketch.node("AveragePool", rectified, **{"kernel_shape": [2, 2], "strides": [2, 2]} | moves)
        return Network(sketch, ended(sketch, sketch.block(sketch.conv(pool, 6))).outputs, opset)

    return draw


named("average pool")(_transition())
named("average pool that overlaps")(_transition(kernel_shape=[3, 3], strides=[2, 1]))
named("average pool with dilation")(_transition(21, dilations=[2, 2], strides=[1, 1]))
named("average pool with padding")(_transition(pads=[1, 1, 1, 1]))
named("average pool that counts its padding")(_transition(pads=[1, 1, 1, 1], count_include_pad=1))
named("average pool in ceil mode")(_transition(ceil_mode=1))
named("average pool in ceil mode that counts")(_transition(ceil_mode=1, count_include_pad=1))
named("average pool of automatic padding")(_transition(auto_pad="SAME_UPPER"))


@named("transition without ReLU")
def _() -> Network:
    sketch = Sketch()
    reduced = sketch.conv(sketch.norm(sketch.block(sketch.stem()), relu=False), 6)
    pool = sketch.node("AveragePool", reduced, kernel_shape=[2, 2], strides=[2, 2])
    return ended(sketch, sketch.block(pool))


@named("no bottleneck")
def _() -> Network:
    sketch = Sketch()
    x = sketch.stem()
    for _ in range(2):
        x = sketch.concat(x, sketch.conv(sketch.norm(x), 4, 3, pad=1))
    return ended(sketch, x)


@named("grouped convolutions")
def _() -> Network:
    sketch = Sketch()
    x = sketch.stem(8)
    inner = sketch.node("Relu", sketch.conv(sketch.norm(x), 8, group=4))
    return ended(sketch, sketch.concat(x, sketch.conv(inner, 4, 3, pad=1, group=2)))


@named("residual")
def _() -> Network:
    sketch = Sketch()
    x = sketch.stem()
    inner = sketch.conv(sketch.node("Relu", sketch.conv(x, 6, 3, pad=1)), 6, 3, pad=1)
    return Network(sketch, (sketch.head(sketch.node("Relu", sketch.node("Add", x, inner))),))


@named("no concatenation")
def _() -> Network:
    sketch = Sketch()
    x = sketch.node("Relu", sketch.conv(sketch.node("Relu", sketch.stem()), 6, 3, pad=1))
    return Network(sketch, (sketch.head(x),))


@named("two heads")
def _() -> Network:
    sketch = Sketch()
    block = sketch.block(sketch.stem())
    return ended(sketch, block, block)


def _flattened(operator: str) -> Callable[[], Network]:
    """Pixels go into the Gemm, one by one."""

    def draw() -> Network:
        sketch = Sketch()
        pool = sketch.node("AveragePool", sketch.norm(sketch.block(sketch.stem())), kernel_shape=[4, 4], strides=[4, 4])
        if operator == "Reshape":
            sketch.lines.insert(0, "wanted = Constant<value = int64[2] {1, 56}>()")
        flat = sketch.node(operator, *([pool, "wanted"] if operator == "Reshape" else [pool]), channels=56)
        weight = sketch.generator.standard_normal((56, 5)) / np.sqrt(56)
        return Network(sketch, (sketch.node("Gemm", flat, sketch.constant(weight), sketch.constant(np.zeros(5))),))

    return draw


named("pixels flattened")(_flattened("Flatten"))
named("pixels reshaped")(_flattened("Reshape"))


def _rectified_vector(sketch: Sketch, flat: str) -> str:
    n = sketch.n_channels[flat]
    weight = sketch.generator.standard_normal((5, n)) / np.sqrt(n)
    gamma, beta = np.linspace(0.5, 1.5, n), np.linspace(-0.3, 0.3, n)
    rectified = sketch.norm(flat, gamma=gamma, beta=beta)
    return sketch.node("Gemm", rectified, sketch.constant(weight), sketch.constant(np.zeros(5)), transB=1)


@named("BN and ReLU behind the pool")
def _() -> Network:
    sketch = Sketch()
    flat = sketch.node("Flatten", sketch.node("GlobalAveragePool", sketch.norm(sketch.block(sketch.stem()))))
    return Network(sketch, (_rectified_vector(sketch, flat),))


@named("average and maximum concatenated in the head")
def _() -> Network:
    sketch = Sketch()
    x = sketch.norm(sketch.block(sketch.stem()))
    both = sketch.concat(sketch.node("GlobalMaxPool", x), sketch.node("GlobalAveragePool", x))
    return Network(sketch, (_rectified_vector(sketch, sketch.node("Flatten", both)),))


@named("input concatenated with itself")
def _() -> Network:
    sketch = Sketch()
    x = sketch.node("Relu", sketch.conv(sketch.concat("x", "x"), 6, 3, pad=1))
    return Network(sketch, (sketch.head(x),))


@named("constant concatenated")
def _() -> Network:
    sketch = Sketch()
    whole = sketch.node("Concat", sketch.stem(), sketch.constant(np.ones((1, 2, 8, 8))), axis=1, channels=8)
    return ended(sketch, whole)


@named("split and joined")
def _() -> Network:
    sketch = Sketch()
    sketch.lines.append(f"p, q = Split<axis = 1, num_outputs = 2>({sketch.stem()})")
    sketch.n_channels |= {"p": 3, "q": 3}
    return ended(sketch, sketch.concat("p", sketch.node("Relu", "q")))


@named("bounds beyond the grid before an average pool")
def _() -> Network:
    sketch = Sketch()
    slopes, offsets = np.linspace(0.5, 1.5, 14), np.linspace(-0.3, 0.3, 14)
    slopes[::5], offsets[::5] = 0.01, -9
    slopes[1::5], offsets[1::5] = -0.01, 9
    rectified = sketch.norm(sketch.block(sketch.stem()), gamma=slopes, beta=offsets)
    pool = sketch.node("AveragePool", rectified, kernel_shape=[2, 2], strides=[2, 2])
    return ended(sketch, sketch.block(sketch.conv(pool, 6)))


@functools.cache
def quantized_network(name: str, form: str) -> tuple[Network, ir.Model]:
    """Quantize a network on 24 images, once a session: the float one and the integer one."""
    network, (scheme, options) = NETWORKS[name](), FORMS[form]
    return network, quantized(network.model(), network.sketch.images(24), scheme, **options)


@functools.cache
def signal_to_noise_db(name: str, form: str, optimize: bool) -> float:
    """Measure the worst output of a quantized network in ONNX Runtime, on images that it has not seen."""
    network, model = quantized_network(name, form)
    x = network.sketch.images(12, seed=9)
    wanted, found = run(network.model(), x, optimize=False), run(model, x, optimize=optimize)
    return min(metrics.sqnr_db(one, other) for one, other in zip(wanted, found, strict=True))
