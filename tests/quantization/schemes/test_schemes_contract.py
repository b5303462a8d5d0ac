"""Tests of every scheme of the catalogue on the tiny DenseNet: its precision, its surroundings, its numbers."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_graphs
import torch
from tiny_densenet import TINY_PREPROCESS, save_images, tiny_model

from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.base import lazy
from deploy_kit.base.errors import InputError, UnknownNameError
from deploy_kit.graph import onnx_file
from deploy_kit.quantization import schemes
from deploy_kit.records import codec

pytest_plugins = ["scheme_worker"]

# The least signal to noise of the logits on normal images: 10 bits of fraction, 7 bits, and 8-bit integers.
FLOOR_DB = {"fp32": 100.0, "fp16": 50.0, "bf16": 35.0, "int8": 30.0}


@dataclasses.dataclass(frozen=True)
class Typed:
    """One scheme, the file it was given and the file it wrote."""

    scheme: schemes.Scheme
    source: Path
    target: Path
    again: Path


@pytest.fixture(scope="session")
def typed(tmp_path_factory: pytest.TempPathFactory, apply_scheme: Callable[..., Any]) -> Callable[[str], Typed]:
    """Apply a scheme with its default options, twice, once a session."""
    folder, done = tmp_path_factory.mktemp("schemes"), dict[str, Typed]()
    calibration = save_images(folder / "calibration.npz", 20, seed=1)

    def make(name: str) -> Typed:
        scheme = schemes.CATALOGUE.get(name)
        if not lazy.present(scheme.package):
            pytest.skip(lazy.install_line(scheme.package))
        if name not in done:
            made = Typed(scheme, folder / f"{name}.source.onnx", folder / f"{name}.onnx", folder / f"{name}.again.onnx")
            made.source.write_bytes(tiny_graphs.simplified()[1])
            for target in (made.target, made.again):
                apply_scheme(name, made.source, target, calibration if scheme.calibrates else None)
            done[name] = made
        return done[name]

    return make


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_graph_carries_the_promised_precision(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)

    assert onnx_file.precision(onnx_file.load(made.target)) == made.scheme.precision


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_input_and_output_stay_float32_with_names_and_shapes(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)
    before, after = onnx_file.load(made.source), onnx_file.load(made.target)

    for side in ("inputs", "outputs"):
        assert onnx_file.specs(getattr(after.graph, side)) == onnx_file.specs(getattr(before.graph, side))


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_file_is_valid_and_holds_its_weights(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)

    onnx.checker.check_model(str(made.target), full_check=True)

    assert not list(made.target.parent.glob(f"{name}*.data"))


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_same_input_gives_the_same_file(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)

    assert made.target.read_bytes() == made.again.read_bytes()


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_source_file_is_left_as_it_was(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)

    assert made.source.read_bytes() == tiny_graphs.simplified()[1]


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_logits_stay_near_torchs_own(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)
    x = tiny_graphs.images(6)
    wanted = tiny_model()(torch.from_numpy(x)).numpy()

    found = tiny_graphs.run_file(made.target, x)

    assert metrics.sqnr_db(wanted, found) > FLOOR_DB[made.scheme.precision]


@pytest.mark.parametrize("name", [name for name in schemes.CATALOGUE.names() if name != "fp32"])
def test_rounding_does_leave_a_trace_in_the_logits(name: str, typed: Callable[[str], Typed]) -> None:
    made = typed(name)
    x = tiny_graphs.images(6)
    wanted = tiny_model()(torch.from_numpy(x)).numpy()

    found = tiny_graphs.run_file(made.target, x)

    assert metrics.sqnr_db(wanted, found) < 90


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_every_option_has_a_default(name: str) -> None:
    assert codec.from_json(schemes.CATALOGUE.get(name).options, {}) is not None


def test_unknown_scheme_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="no quantization scheme is called 'int8_orz'") as caught:
        schemes.CATALOGUE.get("int8_orz")

    assert caught.value.hint == "did you mean 'int8_ort'?"


def image_set(tmp_path: Path, n: int) -> images.ImageSet:
    return images.open_set(str(save_images(tmp_path / "images.npz", n)), TINY_PREPROCESS)


def source(tmp_path: Path, batch: str) -> Path:
    model = tiny_graphs.parse(f"g (float[{batch},1,16,16] x) => (float[{batch},1,16,16] y) {{ y = Relu(x) }}")
    onnx_file.save(model, tmp_path / "source.onnx")
    return tmp_path / "source.onnx"


@pytest.mark.parametrize(("batch", "n_batches", "size"), [("1", 7, 1), ("3", 2, 3), ("7", 1, 7), ("N", 7, 1)])
def test_calibration_comes_in_full_batches_of_the_graphs_size(
    batch: str, n_batches: int, size: int, tmp_path: Path
) -> None:
    calibration = schemes.stream(source(tmp_path, batch), image_set(tmp_path, 7), TINY_PREPROCESS)

    shapes = [part.shape for part in calibration.batches()]

    assert calibration.n_batches == n_batches
    assert shapes == [(size, 1, 16, 16)] * n_batches


def test_calibration_starts_anew_each_time_it_is_asked_for(tmp_path: Path) -> None:
    calibration = schemes.stream(source(tmp_path, "1"), image_set(tmp_path, 3), TINY_PREPROCESS)

    first, second = (np.concatenate(list(calibration.batches())) for _ in range(2))

    assert np.array_equal(first, second)


def test_calibration_gives_preprocessed_images_in_order_under_the_graphs_input(tmp_path: Path) -> None:
    given = image_set(tmp_path, 3)
    calibration = schemes.stream(source(tmp_path, "1"), given, TINY_PREPROCESS)

    found = np.concatenate(list(calibration.batches()))

    pixels = np.stack([given.load(index) for index in range(3)])
    assert calibration.input_name == "x"
    np.testing.assert_allclose(found[:, 0], (pixels / 255 - 0.5) / 0.25, atol=1e-6)


def test_fewer_images_than_one_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.npz: 2 images, fewer than the graph's batch of 3"):
        schemes.stream(source(tmp_path, "3"), image_set(tmp_path, 2), TINY_PREPROCESS)


def test_preprocess_that_does_not_fit_the_graph_is_refused(tmp_path: Path) -> None:
    other = dataclasses.replace(TINY_PREPROCESS, height=24)

    with pytest.raises(InputError, match=r"source\.onnx: expected one input N×1×24×16, found x \[1, 1, 16, 16\]"):
        schemes.stream(source(tmp_path, "1"), image_set(tmp_path, 2), other)
