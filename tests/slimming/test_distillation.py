"""Distillation: what was broken is mended on images that trained nothing; what cannot be bettered stays as it is."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from dense_graphs import Sketch, run
from slim_graphs import image_set

from deploy_kit.accuracy.metrics import kl_divergence
from deploy_kit.base.errors import InputError
from deploy_kit.base.progress import no_progress
from deploy_kit.graph import onnx_file
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.slimming import distillation
from deploy_kit.slimming.distillation import Distilled


def network(seed: int = 0) -> tuple[Sketch, ir.Model]:
    sketch = Sketch(pixels=(6, 6), seed=seed)
    x = sketch.stem()
    x = sketch.concat(x, sketch.conv(sketch.norm(sketch.conv(sketch.norm(x), 8)), 4, 3, pad=1))
    return sketch, sketch.model(sketch.head(sketch.norm(x)))


def distilled(
    original: ir.Model, other: ir.Model, x: np.ndarray, folder: Path, seconds: float = 3.0
) -> tuple[Distilled, ir.Model]:
    onnx_file.save(original, folder / "original.onnx")
    onnx_file.save(other, folder / "slimmed.onnx")
    found = distillation.distill(folder / "original.onnx", folder / "slimmed.onnx", *image_set(x), seconds, no_progress)
    return found, onnx_file.load(folder / "slimmed.onnx")


def damaged(model: ir.Model, scale: float) -> ir.Model:
    """Give a copy whose weights of 3×3 convolutions are noisy by `scale` of their standard deviation."""
    draw = np.random.default_rng(5)
    for node in model.graph:
        weight = node.inputs[1] if node.op_type == "Conv" else None
        if weight is not None and weight.const_value is not None and weight.const_value.shape[-1] == 3:
            array = weight.const_value.numpy()
            noisy = array + scale * array.std() * draw.standard_normal(array.shape)
            weight.const_value = ir.Tensor(noisy.astype(np.float32), name=weight.name)
    return model


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small network learns at a rate that would ruin a trained one."""
    monkeypatch.setattr(distillation, "_RATE", 3e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("faster")
def test_damage_is_mended_on_images_that_trained_nothing(tmp_path: Path) -> None:
    sketch, model = network()
    _, other = network()
    x = sketch.images(400)

    found, mended = distilled(model, damaged(other, 0.3), x, tmp_path)

    fresh = sketch.images(200, seed=9)
    wanted, broken = run(model, fresh)[0], run(other, fresh)[0]
    assert found.steps > 20
    assert found.after < 0.5 * found.before
    assert kl_divergence(wanted, run(mended, fresh)[0]) < 0.6 * kl_divergence(wanted, broken)
    assert "divergence of held-out images" in found.words


def test_what_cannot_be_bettered_keeps_its_bytes(tmp_path: Path) -> None:
    sketch, model = network()
    onnx_file.save(model, tmp_path / "before.onnx")

    found, _ = distilled(model, network()[1], sketch.images(120), tmp_path, seconds=0.5)

    assert (found.before, found.after) == (pytest.approx(0, abs=1e-9), found.before)
    assert (tmp_path / "slimmed.onnx").read_bytes() == (tmp_path / "before.onnx").read_bytes()


def test_statistics_stay_and_the_rest_moves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BN's mean and variance are the network's own: a batch of training must not enter them."""
    monkeypatch.setattr(distillation, "_RATE", 3e-3)
    sketch, model = network()
    other = damaged(network()[1], 0.3)
    before = {name: v.const_value.numpy().copy() for name, v in other.graph.initializers.items() if v.const_value}

    _, mended = distilled(model, other, sketch.images(200), tmp_path, seconds=1.0)

    fixed = {str(n.inputs[i].name) for n in mended.graph if n.op_type == "BatchNormalization" for i in (3, 4)}
    moved = {
        name
        for name, v in mended.graph.initializers.items()
        if v.const_value is not None and not np.array_equal(v.const_value.numpy(), before[name])
    }
    assert moved
    assert not moved & fixed


def test_the_loss_is_the_divergence_of_softened_answers() -> None:
    """One step of size 0 leaves the gradient of T² · KL, which differences of a double-precision formula give, too."""
    sketch, model = network()
    other, x = damaged(network()[1], 0.3), sketch.images(20)
    images, bare = image_set(x)
    training = distillation._Training(TorchGraph(model), TorchGraph(other), images, bare, torch.device("cpu"))
    at, temperature = list(range(8)), 2.0

    training.step(at, 0.0)

    name = next(str(n.inputs[2].name) for n in other.graph if n.op_type in ("Gemm", "Conv") and len(n.inputs) > 2)
    gradient = training._trained[name].grad
    wanted = run(model, x[at])[0].astype(np.float64) / temperature

    def loss(bias: np.ndarray) -> float:
        value = other.graph.initializers[name]
        value.const_value = ir.Tensor(bias.astype(np.float32), name=name)
        found = run(other, x[at])[0].astype(np.float64) / temperature
        p, q = (z - np.log(np.exp(z).sum(1, keepdims=True)) for z in (wanted, found))
        return float(temperature**2 * (np.exp(p) * (p - q)).sum(1).mean())

    bias = training.weights()[name].astype(np.float64)
    step = 1e-2
    slopes = []
    for index in range(3):
        shift = step * np.eye(len(bias))[index]
        slopes.append((loss(bias + shift) - loss(bias - shift)) / (2 * step))
    assert gradient is not None
    assert gradient.numpy()[:3] == pytest.approx(slopes, rel=0.05, abs=1e-5)


def test_the_order_of_images_is_the_same_in_every_run_and_each_epoch_has_its_own() -> None:
    first, second = distillation.order(list(range(10)), 5), distillation.order(list(range(10)), 5)
    drawn = [next(first) for _ in range(4)]

    assert drawn == [next(second) for _ in range(4)]
    assert sorted(drawn[0] + drawn[1]) == sorted(drawn[2] + drawn[3]) == list(range(10))
    assert drawn[0] + drawn[1] != drawn[2] + drawn[3]


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    sketch, model = network()

    with pytest.raises(InputError, match="99 images, and distilling takes 100 at least") as caught:
        distilled(model, network()[1], sketch.images(99), tmp_path)

    assert "--distill FOLDER" in caught.value.hint
