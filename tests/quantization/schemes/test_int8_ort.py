"""Tests of the scheme `int8_ort`: ranges over all images in constant memory, and what is quantized how."""

import itertools
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
import tiny_graphs
import torch
from onnxruntime.quantization import calibrate
from tiny_densenet import TINY_PREPROCESS, save_images, tiny_model

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import QuantizeError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import Calibration, int8_ort
from deploy_kit.quantization.schemes.int8_ort import Int8OrtOptions

N_IMAGES = 40  # three chunks: 16, 16 and 8
# Where a chunk begins, where another does, and the very last image.
CHUNKS = {"first chunk": 0, "middle chunk": 16, "last chunk": 39}
CONV = "g (float[1,1,6,6] x) => (float[1,2,6,6] y) { c = Conv<pads=[1,1,1,1]>(x, w) y = Relu(c) }"
KERNEL = np.random.default_rng(2).standard_normal((2, 1, 3, 3), np.float32)
# Runs in a process of its own: peak memory never shrinks. Arguments: folder, images, method, images of a chunk.
MEASURED = """
import sys
from pathlib import Path
from deploy_kit import images
from deploy_kit.machine import environment
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import int8_ort
from deploy_kit.records.artifacts import Preprocess
folder, n, method, int8_ort._CHUNK = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
preprocess = Preprocess(height=64, width=64, color="gray", mean=(0.5,), std=(0.25,))
image_set = images.open_set(str(folder / "images.npz"), preprocess).first(n)
calibration = schemes.stream(folder / "source.onnx", image_set, preprocess)
int8_ort.apply(folder / "source.onnx", folder / "target.onnx", int8_ort.Int8OrtOptions(method=method), calibration)
print(environment.peak_memory_mib())
"""


def small_images(extreme_at: int) -> np.ndarray:
    """Draw images in -1..1, one of which holds the numbers -9 and 7."""
    x = np.random.default_rng(0).uniform(-1, 1, (N_IMAGES, 1, 1, 6, 6)).astype(np.float32)
    x[extreme_at, 0, 0, 2, 3], x[extreme_at, 0, 0, 4, 1] = -9, 7
    return x


def calibration_of(x: np.ndarray) -> Calibration:
    return Calibration(n_batches=len(x), n_images=len(x), input_name="x", batches=lambda: iter(x))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    onnx_file.save(tiny_graphs.parse(CONV, w=KERNEL), tmp_path / "source.onnx")
    return tmp_path / "source.onnx"


@pytest.fixture(scope="session")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ir.Model]:
    """Quantize the tiny DenseNet with given options, once a session each."""
    folder, done = tmp_path_factory.mktemp("int8_ort"), dict[str, ir.Model]()
    (folder / "source.onnx").write_bytes(tiny_graphs.simplified()[1])
    image_set = images.open_set(str(save_images(folder / "images.npz", 20, seed=1)), TINY_PREPROCESS)

    def make(**options: Any) -> ir.Model:
        if str(options) not in done:
            calibration = schemes.stream(folder / "source.onnx", image_set, TINY_PREPROCESS)
            int8_ort.apply(folder / "source.onnx", folder / "target.onnx", Int8OrtOptions(**options), calibration)
            done[str(options)] = onnx_file.load(folder / "target.onnx")
        return done[str(options)]

    return make


def nodes(model: ir.Model, *kinds: str) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type in kinds)


def constant(value: ir.Value | None) -> np.ndarray:
    assert value is not None and value.const_value is not None
    return value.const_value.numpy()


def kind_of_maker(value: ir.Value | None) -> str:
    maker = value.producer() if value is not None else None
    return maker.op_type if maker else "none"


def activation_zero_points(model: ir.Model) -> list[np.ndarray]:
    return [constant(node.inputs[2]) for node in nodes(model, "QuantizeLinear")]


def ends(ranges: Any) -> tuple[float, float]:
    return float(np.ravel(ranges.lowest)[0]), float(np.ravel(ranges.highest)[0])


@pytest.mark.parametrize("extreme_at", CHUNKS.values(), ids=CHUNKS)
def test_range_of_the_input_ends_at_the_extremes_of_all_images(extreme_at: int, source: Path) -> None:
    ranges = int8_ort.observe(source, Int8OrtOptions(), calibration_of(small_images(extreme_at)))

    assert ends(ranges["x"]) == (-9, 7)


@pytest.mark.parametrize("extreme_at", CHUNKS.values(), ids=CHUNKS)
def test_range_of_an_activation_is_the_true_one_over_all_images(extreme_at: int, source: Path) -> None:
    x = small_images(extreme_at)
    c = torch.conv2d(torch.from_numpy(x[:, 0]), torch.from_numpy(KERNEL), padding=1).numpy()

    ranges = int8_ort.observe(source, Int8OrtOptions(), calibration_of(x))

    np.testing.assert_allclose(ends(ranges["c"]), [c.min(), c.max()], rtol=1e-5)


@pytest.mark.parametrize("extreme_at", CHUNKS.values(), ids=CHUNKS)
def test_percentiles_are_those_of_all_images(extreme_at: int, source: Path) -> None:
    x = small_images(extreme_at)
    x[extreme_at, 0, 0] = np.linspace(-9, 7, 36).reshape(6, 6)

    ranges = int8_ort.observe(source, Int8OrtOptions(method="percentile"), calibration_of(x))

    # A merge of histograms may lose the outermost number itself, and then the next one stands for it.
    np.testing.assert_allclose(ends(ranges["x"]), [-9, 7], atol=1.1 * 16 / 35)


@pytest.mark.parametrize("extreme_at", CHUNKS.values(), ids=CHUNKS)
def test_histogram_for_the_entropy_counts_every_number_of_all_images(extreme_at: int, source: Path) -> None:
    x = small_images(extreme_at)

    histogram = int8_ort.observe(source, Int8OrtOptions(method="entropy"), calibration_of(x))["x"]

    assert histogram.hist.sum() == x.size


def test_range_without_the_extreme_image_is_another_one(source: Path) -> None:
    x = np.delete(small_images(extreme_at=20), 20, axis=0)

    ranges = int8_ort.observe(source, Int8OrtOptions(), calibration_of(x))

    assert max(map(abs, ends(ranges["x"]))) <= 1


@pytest.mark.skipif(onnxruntime.__version__ != "1.31.1", reason="measured with ONNX Runtime 1.31.1")
def test_onnxruntimes_own_chunks_lose_the_images_that_these_do_not(source: Path, tmp_path: Path) -> None:
    collector = calibrate.create_calibrator(
        source,
        ["Conv"],
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        extra_options={"max_intermediate_outputs": 16},
    )
    collector.collect_data(int8_ort._Chunk("x", iter(small_images(extreme_at=3))))

    ranges = collector.compute_data()

    assert ends(ranges["x"])[0] > -9


@pytest.mark.parametrize(("symmetric", "scale"), [(False, 16 / 255), (True, 18 / 254)])
def test_range_arrives_in_the_file_as_the_inputs_scale(
    symmetric: bool, scale: float, source: Path, tmp_path: Path
) -> None:
    calibration = calibration_of(small_images(extreme_at=3))

    int8_ort.apply(source, tmp_path / "target.onnx", Int8OrtOptions(symmetric=symmetric), calibration)

    model = onnx_file.load(tmp_path / "target.onnx")
    quantizer = next(node for node in nodes(model, "QuantizeLinear") if node.inputs[0].name == "x")
    assert float(constant(quantizer.inputs[1])) == pytest.approx(scale, rel=0.005)


def peak_mib(folder: Path, n_images: int, method: str, chunk: int) -> int:
    command = [sys.executable, "-c", MEASURED, str(folder), str(n_images), method, str(chunk)]
    paths = os.pathsep.join(filter(None, [str(Path(schemes.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})
    return int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sizable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 256 images and a graph whose activations take 1.2 MiB an image."""
    folder = tmp_path_factory.mktemp("sizable")
    text = (
        "g (float[1,1,64,64] x) => (float[1,2,64,64] y) "
        "{ a = Conv<pads=[1,1,1,1]>(x, w) b = Relu(a) c = Conv<strides=[1,1]>(b, v) y = Relu(c) }"
    )
    generator = np.random.default_rng(0)
    weights = {"w": generator.standard_normal((32, 1, 3, 3)), "v": generator.standard_normal((2, 32, 1, 1))}
    onnx_file.save(tiny_graphs.parse(text, **weights), folder / "source.onnx")
    save_images(folder / "images.npz", 256, size=64)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["minmax", "entropy"])
def test_memory_does_not_grow_with_the_images(method: str, sizable: Path) -> None:
    few, many = (peak_mib(sizable, n, method, int8_ort._CHUNK) for n in (32, 256))

    assert many < 1.1 * few


@pytest.mark.slow
def test_memory_would_grow_if_all_images_were_one_chunk(sizable: Path) -> None:
    few, many = (peak_mib(sizable, n, "entropy", 1000) for n in (32, 256))

    assert many > 1.1 * few


def test_activations_are_unsigned_with_a_zero_point(quantized: Callable[..., ir.Model]) -> None:
    zero_points = activation_zero_points(quantized())

    assert {array.dtype for array in zero_points} == {np.dtype(np.uint8)}
    assert any(array.any() for array in zero_points)


def test_symmetric_activations_are_signed_with_zero_point_zero(quantized: Callable[..., ir.Model]) -> None:
    zero_points = activation_zero_points(quantized(symmetric=True))

    assert {array.dtype for array in zero_points} == {np.dtype(np.int8)}
    assert not any(array.any() for array in zero_points)


def test_symmetric_biases_stay_float(quantized: Callable[..., ir.Model]) -> None:
    biases = [node.inputs[2] for node in nodes(quantized(symmetric=True), "Conv", "Gemm")]

    assert biases and all(constant(bias).dtype == np.float32 for bias in biases)


@pytest.mark.parametrize(("symmetric", "n_pairs"), [(False, 1), (True, 2)])
def test_symmetric_gives_each_reader_a_pair_of_its_own(symmetric: bool, n_pairs: int, tmp_path: Path) -> None:
    text = "g (float[1,1,6,6] x) => (float[1,2,6,6] y) { a = Conv(x, w) b = Conv(x, w) y = Sub(a, b) }"
    onnx_file.save(tiny_graphs.parse(text, w=np.ones((2, 1, 1, 1))), tmp_path / "source.onnx")

    calibration = calibration_of(small_images(0))
    int8_ort.apply(tmp_path / "source.onnx", tmp_path / "target.onnx", Int8OrtOptions(symmetric=symmetric), calibration)

    convolutions = nodes(onnx_file.load(tmp_path / "target.onnx"), "Conv")
    assert len({id(node.inputs[0].producer()) for node in convolutions}) == n_pairs


def test_biases_are_int32_where_it_is_not_symmetric(quantized: Callable[..., ir.Model]) -> None:
    makers = [node.inputs[2].producer() for node in nodes(quantized(), "Conv", "Gemm")]

    assert {constant(maker.inputs[0]).dtype for maker in makers} == {np.dtype(np.int32)}


@pytest.mark.parametrize("symmetric", [False, True])
def test_every_convolution_and_gemm_reads_quantized_input_and_weight(
    symmetric: bool, quantized: Callable[..., ir.Model]
) -> None:
    readers = nodes(quantized(symmetric=symmetric), "Conv", "Gemm")

    makers = {kind_of_maker(value) for node in readers for value in node.inputs[:2]}

    assert makers == {"DequantizeLinear"}


@pytest.mark.parametrize("symmetric", [False, True])
def test_concat_and_batchnorm_are_not_quantized(symmetric: bool, quantized: Callable[..., ir.Model]) -> None:
    model = quantized(symmetric=symmetric)
    floats = list(nodes(model, "Concat", "BatchNormalization"))

    readers = {use.node.op_type for node in floats for use in node.outputs[0].uses()}
    parameters = itertools.chain.from_iterable(node.inputs[1:] for node in nodes(model, "BatchNormalization"))

    assert len(floats) == 4 + 6
    assert "QuantizeLinear" not in readers
    assert all(constant(value).dtype == np.float32 for value in parameters)


@pytest.mark.parametrize(("options", "most"), [({}, 127), ({"symmetric": True}, 127), ({"reduce_range": True}, 64)])
def test_weights_are_int8_with_one_scale_for_each_output_channel(
    options: Mapping[str, Any], most: int, quantized: Callable[..., ir.Model]
) -> None:
    floats = tiny_graphs.simplified_model().graph.initializers

    for node in nodes(quantized(**options), "Conv"):
        weight, scale, zero_point = (constant(value) for value in node.inputs[1].producer().inputs)
        original = constant(floats[node.inputs[1].producer().inputs[0].name.removesuffix("_quantized")])
        largest = np.abs(original).max((1, 2, 3))
        assert (weight.dtype, scale.shape, zero_point.any()) == (np.int8, (len(original),), False)
        assert np.abs(weight.astype(int)).max() <= most
        assert np.abs(weight * scale[:, None, None, None] - original).max() <= largest.max() / most


def test_operators_that_are_not_listed_stay_float(quantized: Callable[..., ir.Model]) -> None:
    model = quantized(operators=("Gemm",))

    assert {kind_of_maker(node.inputs[1]) for node in nodes(model, "Conv")} == {"none"}
    assert {kind_of_maker(node.inputs[1]) for node in nodes(model, "Gemm")} == {"DequantizeLinear"}


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_methods_give_logits_near_torchs_own_too(
    method: str, quantized: Callable[..., ir.Model], tmp_path: Path
) -> None:
    x = tiny_graphs.images(6)
    wanted = tiny_model()(torch.from_numpy(x)).numpy()

    onnx_file.save(quantized(method=method), tmp_path / "model.onnx")

    assert metrics.sqnr_db(wanted, tiny_graphs.run_file(tmp_path / "model.onnx", x)) > 30


def test_operator_set_before_scales_per_channel_is_refused_with_a_hint(tmp_path: Path) -> None:
    onnx_file.save(tiny_graphs.parse(CONV, 12, w=KERNEL), tmp_path / "source.onnx")

    with pytest.raises(QuantizeError, match=r"source\.onnx: operator set 12; Q/DQ per channel begins at 13") as caught:
        int8_ort.apply(
            tmp_path / "source.onnx", tmp_path / "target.onnx", Int8OrtOptions(), calibration_of(small_images(0))
        )

    assert caught.value.hint == "export with --opset 13 or higher"


@pytest.mark.parametrize("opset", [13, 18, 20, 21, 23])
def test_every_later_operator_set_is_quantized_and_kept(opset: int, tmp_path: Path) -> None:
    onnx_file.save(tiny_graphs.parse(CONV, opset, w=KERNEL), tmp_path / "source.onnx")
    x = small_images(0)[1]
    (wanted,) = tiny_graphs.evaluate(onnx_file.load(tmp_path / "source.onnx"), x)

    int8_ort.apply(
        tmp_path / "source.onnx", tmp_path / "target.onnx", Int8OrtOptions(), calibration_of(small_images(0))
    )

    assert onnx_file.opset(onnx_file.load(tmp_path / "target.onnx")) == opset
    assert metrics.sqnr_db(wanted, tiny_graphs.run_file(tmp_path / "target.onnx", x)) > 20


def test_root_logger_has_its_level_back(source: Path, tmp_path: Path) -> None:
    before = logging.root.level

    int8_ort.apply(source, tmp_path / "target.onnx", Int8OrtOptions(), calibration_of(small_images(0)))

    assert logging.root.level == before
