"""Images observed in parts, taken in their order: every bit is that of one observer."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch

from deploy_kit.base.errors import QuantizeError
from deploy_kit.quantization import ranges
from deploy_kit.quantization.ranges import Observer
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations, ReducedGraph

N = 60
FIRST = 3


def graph(threads: int = 0) -> ReducedGraph:
    sketch = Sketch(pixels=(6, 5))
    sketch.node("Relu", sketch.conv("x", 4, 3, pad=1, gain=[0.01, 1, 10, 0]), output="y")
    activations = ObservedActivations(names=("conv3", "x"), means=("y",), histograms=("conv3", "x"))
    return ReducedGraph(ir.serde.serialize_model(sketch.model("y")), activations, threads)


def images(kind: str) -> np.ndarray:
    x = np.random.default_rng(5).standard_normal((N, 3, 6, 5)).astype(np.float32)
    if kind == "rising":
        x *= np.geomspace(1e-3, 1e3, N, dtype=np.float32)[:, None, None, None]
    elif kind == "late":
        x[:20, 1] = 0
    elif kind == "outlier":
        x[37, 2, 3, 3] = 1e6
    elif kind == "heavy":
        x = x**15
    return x


def alone(x: np.ndarray, expected: int = 0) -> Observer:
    observer = Observer(graph(), expected=expected)
    for image in x:
        observer.add(image[None])
    return observer


def in_parts(x: np.ndarray, size: int, expected: int = 0) -> tuple[Observer, int]:
    """Observe the first images, then parts that know the bins of two parts before; give how many were not taken."""
    observer, own = Observer(graph(), expected=expected), graph(threads=1)
    for image in x[:FIRST]:
        observer.add(image[None])
    known, refused = [observer.inner] * 2, 0
    for begin in range(FIRST, N, size):
        part = Observer(own, expected=expected, n_runs=begin, inner=known[-2])
        for image in x[begin : begin + size]:
            part.add(image[None])
        found = part.part()
        if found is None or not observer.take(found):
            refused += 1
            for image in x[begin : begin + size]:
                observer.add(image[None])
        known.append(observer.inner)
    return observer, refused


def bits(observer: Observer) -> Iterator[bytes]:
    for channels in observer.channels().values():
        yield from (part.tobytes() for part in vars(channels).values())
    yield observer.means()["y"].tobytes()
    for histogram in observer.histograms.values():
        yield from (part.tobytes() for part in vars(histogram).values())


@pytest.mark.parametrize("size", [1, 7, 32])
@pytest.mark.parametrize("kind", ["noise", "rising", "late", "outlier", "heavy"])
def test_parts_taken_in_order_give_every_bit_of_one_observer(kind: str, size: int) -> None:
    x = images(kind)

    found, refused = in_parts(x, size)

    assert list(bits(found)) == list(bits(alone(x)))
    assert found.n_images == N
    assert refused == (kind == "outlier") or kind == "heavy"


def test_parts_in_another_order_give_other_bits() -> None:
    x = images("noise")

    assert list(bits(in_parts(x[::-1], 7)[0])) != list(bits(alone(x)))


def test_parts_count_the_images_that_one_observer_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "COUNTED_IMAGES", 15)
    monkeypatch.setattr(ranges, "COUNTED_BYTES", 1)
    x = images("noise")

    found, _ = in_parts(x, 7, expected=N)

    assert list(bits(found)) == list(bits(alone(x, expected=N)))
    counted = found.histograms["x"]
    assert counted.counts[0].sum() == 15 * 30  # every fourth of 60


def test_a_value_that_is_not_finite_is_refused_in_a_part_as_well() -> None:
    x = images("noise")
    x[40, 0, 0, 0] = np.nan

    with pytest.raises(QuantizeError, match="not finite on these images"):
        in_parts(x, 7)
