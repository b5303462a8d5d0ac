"""Biases fitted to the logits: torch computes what was written, a planted error goes, chance changes nothing."""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import torch
from dense_graphs import Sketch, array, batches, nodes, planned, quantized, run
from dense_networks import NETWORKS
from pixel_graphs import frames, taking_pixels

from deploy_kit.accuracy import metrics
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.quantization.int8 import bias_fit, mixed_precision, portable
from deploy_kit.quantization.int8.grids import Grid
from deploy_kit.quantization.int8.observation import CalibrationContext, ImageStream
from deploy_kit.quantization.int8.plan import Int8Plan
from deploy_kit.quantization.schemes import _int8

MAX_FORM = ("relu_after_pool", "batchnorm_to_max")
N_IMAGES = 96
NOT_IN_TORCH = "not fitted to the logits, as torch does not compute this graph"
Write = Callable[[Int8Plan], ir.Model]


def plan_of(name: str, n: int = N_IMAGES) -> tuple[Int8Plan, np.ndarray]:
    network = NETWORKS[name]()
    x = network.sketch.images(n)
    return planned(network.model(), x, passes=MAX_FORM), x


def fitted(plan: Int8Plan, x: np.ndarray, write: Write = portable.write_portable) -> str:
    said: dict[str, str] = {}
    context = CalibrationContext(note=said.__setitem__)
    _int8.fit_biases(plan, write, ImageStream(n=len(x), batches=lambda: batches(x), context=context))
    return said["biases"]


def off(plan: Int8Plan) -> ir.Model:
    """Write a graph whose last bias is wrong."""
    model = portable.write_portable(plan)
    held = next(value for name, value in model.graph.initializers.items() if name.endswith(f"{_gemm(plan)}.b.q"))
    spoiled = array(held) + np.array([9000, -7000, 0, 5000, -9000], np.int32)
    held.const_value = ir.tensor(spoiled, name=held.name)
    return model


def _gemm(plan: Int8Plan) -> str:
    return str(nodes(plan.model, "Gemm")[0].outputs[0].name)


def form_of(model: ir.Model) -> list[object]:
    constants = sorted(f"{v.dtype} {v.const_value.shape}" for v in model.graph.initializers.values())
    return [*(node.op_type for node in model.graph), *constants]


@pytest.mark.parametrize("name", ["plain", "1-D", "negative gammas", "average pool", "ReLU behind the stem's pool"])
def test_torch_computes_what_was_written(name: str) -> None:
    plan, x = plan_of(name)
    whole = mixed_precision.keep_in_float(plan, ())
    written = portable.write_portable(whole)
    wanted = run(written, x[:8], optimize=False)[0]

    with torch.no_grad():
        found = bias_fit._IntegerNet(whole, written)._logits(x[:8]).numpy()

    # A sum in another order may round an activation to the next integer: far below the noise of rounding itself.
    assert metrics.sqnr_db(wanted, found) > 60


@pytest.mark.parametrize("color", ["rgb", "gray"])
def test_torch_computes_what_was_written_for_pixels(color: str) -> None:
    x = frames(channels=1 if color == "gray" else 3)
    whole = mixed_precision.keep_in_float(planned(taking_pixels(color, "pads=[1,2,0,1], strides=[2,1]"), x), ())
    written = portable.write_portable(whole)

    with torch.no_grad():
        found = bias_fit._IntegerNet(whole, written)._logits(x).numpy()

    assert metrics.sqnr_db(run(written, x, optimize=False)[0].reshape(len(x), -1), found) > 60


@pytest.mark.slow
def test_a_planted_error_is_taken_back_and_the_graph_keeps_its_form() -> None:
    plan, x = plan_of("plain")
    fresh = NETWORKS["plain"]().sketch.images(64, seed=9)
    wanted, before = run(NETWORKS["plain"]().model(), fresh)[0], off(plan)

    said = fitted(plan, x, off)

    after = off(plan)
    gain = metrics.sqnr_db(wanted, run(after, fresh)[0]) - metrics.sqnr_db(wanted, run(before, fresh)[0])
    assert said.startswith("fitted to the logits of 72 images: ")
    assert said.endswith(" dB on 24 images held out")
    assert gain > 3
    assert form_of(after) == form_of(before)


def test_what_gains_nothing_on_images_held_out_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, x = plan_of("plain")
    before = portable.write_portable(plan)
    worse = {_gemm(plan): np.array([1.0, -1.0, 1.0, -1.0, 1.0])}
    monkeypatch.setattr(bias_fit._IntegerNet, "fit", lambda *_: worse)

    said = fitted(plan, x)

    assert said.startswith("not fitted to the logits, as that gains no more than chance would: ")
    assert run(portable.write_portable(plan), x)[0].tolist() == run(before, x)[0].tolist()


def test_a_mix_is_written_without_what_was_fitted_for_the_whole() -> None:
    plan, _ = plan_of("plain", 8)
    plan.fitted[_gemm(plan)] = np.ones(5)
    stem = mixed_precision.groups(plan)[0][0]

    assert mixed_precision.keep_in_float(plan, ()).fitted is plan.fitted
    assert not mixed_precision.keep_in_float(plan, (stem,)).fitted


def _refuse(*_: object, **__: object) -> None:
    raise RuntimeError("shapes do not match")


def test_few_images_and_a_graph_that_torch_does_not_compute_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    few, x = plan_of("plain", 40)
    sketch = Sketch()
    odd = planned(sketch.model(sketch.head(sketch.node("Erf", sketch.stem()))), sketch.images(64))

    with monkeypatch.context() as torn:
        torn.setattr(TorchGraph, "forward", _refuse)
        assert fitted(plan_of("plain")[0], x.repeat(2, 0)) == NOT_IN_TORCH
    assert fitted(few, x) == "not fitted to the logits, as 40 images are too few"
    assert fitted(odd, sketch.images(64)) == NOT_IN_TORCH
    assert not few.fitted
    assert not odd.fitted


def test_logits_that_are_all_zero_are_left_alone() -> None:
    sketch = Sketch()
    silent = sketch.node("Mul", sketch.network(), sketch.constant(np.zeros((1, 5))))
    x = sketch.images(64)

    said = fitted(planned(sketch.model(silent), x), x)

    assert said == "not fitted to the logits, as nothing brings the integer graph nearer to them"


def test_a_large_network_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, x = plan_of("plain")
    monkeypatch.setattr(_int8.method_choice, "MOST_MACS", 1000)

    assert fitted(plan, x) == "not fitted to the logits, as that takes long for a network of this size"


def test_rounding_hands_a_gradient_on_inside_the_grid_alone() -> None:
    grid = Grid(scale=0.5, zero=10)
    x = torch.tensor([-6.0, -5.0, -0.3, 0.2, 122.5, 123.0], requires_grad=True)

    result = bias_fit._Rounding.apply(x, grid)
    result.backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))

    assert result.tolist() == grid.real(grid.quantize(x.detach().numpy())).tolist()
    assert x.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 5.0, 0.0]


def test_torch_has_its_threads_back_whatever_happened() -> None:
    before = torch.get_num_threads()

    with pytest.raises(KeyboardInterrupt), bias_fit._one_thread():
        assert torch.get_num_threads() == 1
        raise KeyboardInterrupt

    assert torch.get_num_threads() == before


def test_every_image_is_drawn_as_often() -> None:
    order = bias_fit._order(100)

    assert len(order) >= bias_fit._STEPS * bias_fit._BATCH
    assert all(sorted(order[at : at + 100]) == list(range(100)) for at in range(0, len(order), 100))


@pytest.mark.parametrize(
    ("options", "fits"),
    [
        ({}, True),
        ({"form": "depthwise"}, True),
        ({"fit_biases": False}, False),
        ({"bias_correction": False}, False),
        ({"keep": ("stem",)}, False),
    ],
)
def test_the_scheme_fits_unless_told_otherwise(
    options: dict[str, object], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []
    monkeypatch.setattr(_int8, "fit_biases", lambda *given: called.append(given))
    network = NETWORKS["plain"]()

    quantized(network.model(), network.sketch.images(4), method="mse", rounding="nearest", **options)

    assert bool(called) == fits


def test_without_torch_the_scheme_does_without_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_int8, "present", lambda package: package != "torch")
    plan, x = plan_of("plain", 64)

    assert fitted(plan, x) == "not fitted to the logits, as torch is not installed"
