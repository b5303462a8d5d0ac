"""Tests of pickled modules: their lists are compared, and what their own code computes is said to have no witness."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts

SIDE = 32


class Scale(nn.Module):
    """An operation without weights, whose code no file holds."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Layer(nn.Module):
    """A dense layer whose own order is a list."""

    def __init__(self, width: int, growth: int, options: dict[str, Any]) -> None:
        super().__init__()
        dilation = options.get("dilation", 1)
        inner: list[nn.Module] = [
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * growth, 1, bias=False),
            nn.BatchNorm2d(2 * growth), nn.ReLU(),
            nn.Conv2d(2 * growth, growth, 3, padding=dilation, dilation=dilation, bias=False),
        ]  # fmt: skip
        if act := options.get("dense_act"):
            inner[1], inner[4] = act, act
        if options.get("swap"):
            inner[3], inner[4] = inner[4], inner[3]
        self.inner = nn.Sequential(*inner, *[Scale(0.5)] * options.get("scaled", 0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.inner(x)], 1)


def net(**options: Any) -> nn.Module:
    joint: list[nn.Module] = [nn.BatchNorm2d(14), nn.ReLU(), nn.Conv2d(14, 6, 1, bias=False), nn.AvgPool2d(2)]
    if options.get("relu_first"):
        joint[0], joint[1] = joint[1], joint[0]
    if options.get("no_pool"):
        joint = joint[:3]
    if options.get("max_pool"):
        joint[3] = nn.MaxPool2d(2)
    joint[3:] = [options["pool"]] if "pool" in options else joint[3:]
    joint[1] = options.get("outer_act", joint[1])
    end: list[nn.Module] = [
        nn.BatchNorm2d(14),
        options.get("last_act", nn.ReLU()),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ]
    if options.get("end_swap"):
        end[0], end[1] = end[1], end[0]
    parts = [
        nn.Conv2d(3, 6, 3, padding=1, bias=False), Layer(6, 4, options), Layer(10, 4, options), nn.Sequential(*joint),
        Layer(6, 4, options), Layer(10, 4, options), *end, nn.Linear(14, 5),
    ]  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(*parts).requires_grad_(False)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
            part.momentum = None
    model.train()(torch.randn(8, 3, SIDE, SIDE))
    return model.eval()


def saved(model: nn.Module, folder: Path) -> Path:
    torch.save(model, folder / "net.pth")
    return folder / "net.pth"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_pool": True},
        {"relu_first": True},
        {"no_pool": True},
        {"dense_act": nn.LeakyReLU(0.2)},
        {"outer_act": nn.LeakyReLU(0.2), "last_act": nn.LeakyReLU(0.2), "dense_act": nn.LeakyReLU(0.1)},
        {"dense_act": nn.GELU(), "outer_act": nn.GELU(), "last_act": nn.GELU()},
    ],
    ids=lambda o: "-".join(o) or "plain",
)
def test_network_of_lists_is_rebuilt_as_they_compute(options: dict[str, Any], tmp_path: Path) -> None:
    model, x = net(**options), torch.randn(2, 3, SIDE, SIDE)

    network = checkpoint.read_checkpoint(saved(model, tmp_path))

    assert (network.model(x) - model(x)).abs().max() <= 1e-5 * model(x).abs().max()
    assert any("has no witness, but for" in remark for remark in network.remarks)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"swap": True}, r"the list '1.inner' computes an activation \(relu\) where the rebuilt network has"),
        ({"scaled": 1}, r"'1\.inner\.6' is a 'Scale', whose code is not in the file"),
        ({"dilation": 2}, r"has padding \[2, 2\], expected \[1, 1\]"),
        ({"end_swap": True}, r"computes an activation \(relu\) where the rebuilt network has"),
        (
            {"last_act": nn.ELU()},
            r"computes an activation \(elu\) where the rebuilt network has an activation \(relu\)",
        ),
        ({"last_act": nn.Threshold(0.1, 0.0)}, r"computes an activation \(Threshold\) where the rebuilt network has"),
        ({"outer_act": nn.Softshrink()}, "one of its modules is Softshrink, an activation that is not supported"),
        ({"dense_act": nn.ELU(0.5)}, "one of its modules is ELU of alpha 0.5, an activation that is not supported"),
        ({"dense_act": nn.GELU("tanh")}, "one of its modules is GELU of approximate tanh"),
        ({"pool": nn.AvgPool2d(3, 2, 1)}, "the pool of '3' is avg, kernel 3, stride 2, padding 1: not supported"),
        ({"pool": nn.MaxPool2d(3, 2, 1)}, "the pool of '3' is max, kernel 3, stride 2, padding 1: not supported"),
        ({"pool": nn.AvgPool2d(2, ceil_mode=True)}, "the pool of '3' is avg, kernel 2, .*, ceil mode: not supported"),
        ({"pool": nn.LPPool2d(2, 2)}, "the pool of '3' is LPPool2d: not supported"),
        ({"pool": nn.AdaptiveAvgPool2d(16)}, "the pool of '3' is AdaptiveAvgPool2d: not supported"),
    ],
    ids=lambda part: next(iter(part)) if isinstance(part, dict) else part[-20:],
)
def test_list_that_computes_something_else_is_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_checkpoint(saved(net(**options), tmp_path))


class TwoCrops(nn.Module):
    """Code of its own around lists: no file holds it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        self.flipped = True

    def forward(self, x: Tensor) -> Tensor:
        return (self.net(x) + self.net(x.flip(3))) / 2


def test_code_outside_of_the_file_is_said_to_have_no_witness(tmp_path: Path) -> None:
    network = checkpoint.read_checkpoint(saved(TwoCrops().eval(), tmp_path))

    said = next(remark for remark in network.remarks if "TwoCrops' computes is code outside of the file" in remark)
    assert said.endswith("what its settings change is not known: flipped")


class Standardized(nn.Conv2d):
    """A convolution whose weight is standardized by code of its own: the file holds the weight as it was before."""


class Bare(nn.Module):
    """Layers outside of any list."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()
        plain = self.net[1].inner
        plain[2] = Standardized(6, 8, 1, bias=False)
        self.net[1].inner = nn.ModuleDict({f"part{at}": part for at, part in enumerate(plain)})


def test_layer_of_a_class_of_its_own_is_named(tmp_path: Path) -> None:
    network = checkpoint.read_checkpoint(saved(Bare().eval(), tmp_path))

    assert any("classes of its own are taken as torch's: Standardized" in remark for remark in network.remarks)


def test_code_outside_of_the_file_is_refused_if_strict_and_its_cures_hold(tmp_path: Path) -> None:
    model, x = TwoCrops().eval(), torch.randn(2, 3, SIDE, SIDE)
    path, io = saved(model, tmp_path), tmp_path / "io.npz"
    facts = ArchitectureFacts(
        concat="append", final_relu=True, final_order="norm_first", head_pool="avg", feature_norm="none"
    )
    strict = StatedFacts(facts=facts, strict=True)

    with pytest.raises(CheckpointError, match="code outside of the file") as refused:
        checkpoint.read_checkpoint(path, strict)

    assert refused.value.hint is not None
    assert "torch.export.save" in refused.value.hint
    assert "--probe io.npz" in refused.value.hint
    torch.export.save(torch.export.export(model, (x[:1],)), tmp_path / "model.pt2")
    with pytest.raises(CheckpointError, match="flip"):  # the graph shows what no DenseNet computes
        checkpoint.read_checkpoint(tmp_path / "model.pt2", strict)
    np.savez(io, input=x.numpy(), logits=model(x).numpy())
    with pytest.raises(CheckpointError, match="combinations gives these logits"):
        checkpoint.read_checkpoint(path, replace(strict, probe=str(io)))
    np.savez(io, input=x.numpy(), logits=model.net(x).numpy())
    checkpoint.read_checkpoint(path, replace(strict, probe=str(io)))
