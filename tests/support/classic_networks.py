"""AlexNet, VGG, GoogLeNet, Inception-v3 and ResNet as their papers and torchvision build them, a few channels wide."""

import io
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

CLASSES = 6


class Conv(nn.Sequential):
    """Convolution, BN and ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: Any, **options: Any) -> None:
        super().__init__(nn.Conv2d(n_in, n_out, kernel, bias=False, **options), nn.BatchNorm2d(n_out), nn.ReLU())


class Branches(nn.Module):
    """What several branches make of one map, concatenated."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Residual(nn.Module):
    """A branch and a shortcut, added."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut, self.relu = branch, shortcut, nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))


class Logits(nn.Module):
    """Mean over the map, flatten, Dropout, linear; written with methods of tensors as torchvision's `forward` does."""

    def __init__(self, n_in: int) -> None:
        super().__init__()
        self.pool, self.dropout, self.linear = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.4), nn.Linear(n_in, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(torch.flatten(self.pool(x), 1)))


def alexnet() -> nn.Module:
    """Large strides, overlapping pools, normalization across channels, three linear layers with Dropout."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 11, 4, 2), nn.ReLU(), nn.LocalResponseNorm(5, k=2.0), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 16, 5, padding=2, groups=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Dropout(), nn.Linear(16, 24), nn.ReLU(), nn.Dropout(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, CLASSES),
    )  # fmt: skip


def vgg() -> nn.Module:
    """3×3 convolutions with biases and BN, and a head on the flattened map."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 8), (8, 12), (12, 16)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.BatchNorm2d(n_out), nn.ReLU(), nn.MaxPool2d(2, 2)]
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 32), nn.ReLU(), nn.Dropout(),
        nn.Linear(32, CLASSES),
    )  # fmt: skip


def googlenet() -> nn.Module:
    """Four branches, pools that round up."""

    def inception(n_in: int) -> nn.Module:
        return Branches(
            Conv(n_in, 4, 1),
            nn.Sequential(Conv(n_in, 4, 1), Conv(4, 6, 3, padding=1)),
            nn.Sequential(Conv(n_in, 2, 1), Conv(2, 4, 3, padding=1)),
            nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Conv(n_in, 4, 1)),
        )

    return nn.Sequential(
        Conv(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, ceil_mode=True), inception(8),
        nn.MaxPool2d(3, 2, ceil_mode=True), inception(18), Logits(18),
    )  # fmt: skip


def inception() -> nn.Module:
    """Convolutions of 1×7 and 7×1, average pools that count their padding, the input's channels rescaled."""

    def factorized(n_in: int) -> nn.Module:
        return Branches(
            Conv(n_in, 4, 1),
            nn.Sequential(Conv(n_in, 4, 1), Conv(4, 4, (1, 7), padding=(0, 3)), Conv(4, 6, (7, 1), padding=(3, 0))),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), Conv(n_in, 4, 1)),
        )

    def reduction(n_in: int) -> nn.Module:
        return Branches(Conv(n_in, 6, 3, stride=2), nn.MaxPool2d(3, 2))

    return nn.Sequential(
        _Rescaled(), Conv(3, 8, 3, stride=2), Conv(8, 8, 3, padding=1), factorized(8), reduction(14), factorized(20),
        Logits(14),
    )  # fmt: skip


class _Rescaled(nn.Module):
    """torchvision's `transform_input`: each channel sliced, scaled and put back."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.unsqueeze(x[:, at], 1) * scale + shift for at, scale, shift in _RESCALE]
        return torch.cat(parts, 1)


_RESCALE = ((0, 0.458, -0.030), (1, 0.448, -0.088), (2, 0.450, -0.188))


def resnet() -> nn.Module:
    """A basic block, a bottleneck, and shortcuts with and without a convolution."""

    def bare(n_in: int, n_out: int, kernel: int, **options: Any) -> list[nn.Module]:
        return [nn.Conv2d(n_in, n_out, kernel, bias=False, **options), nn.BatchNorm2d(n_out)]

    basic = nn.Sequential(Conv(8, 8, 3, padding=1), *bare(8, 8, 3, padding=1))
    bottleneck = nn.Sequential(Conv(8, 6, 1), Conv(6, 6, 3, stride=2, padding=1), *bare(6, 16, 1))
    return nn.Sequential(
        Conv(3, 8, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1), Residual(basic, nn.Identity()),
        Residual(bottleneck, nn.Sequential(*bare(8, 16, 1, stride=2))), Logits(16),
    )  # fmt: skip


NETWORKS = {"alexnet": alexnet, "vgg": vgg, "googlenet": googlenet, "inception": inception, "resnet": resnet}


def trained(name: str, side: int) -> nn.Module:
    """Build a network with seeded weights whose BN statistics are those of some images, in eval mode."""
    torch.manual_seed(3)
    network = NETWORKS[name]()
    settle(network, (3, side, side))
    return network


def settle(network: nn.Module, shape: tuple[int, ...]) -> None:
    """Draw the weights of a network, give its BNs the statistics of normal inputs of a shape, and set eval mode."""
    for layer in network.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight)
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(16, *shape))
    network.eval().requires_grad_(False)


def exported(network: nn.Module, side: int | tuple[int, ...], exporter: str, opset: int) -> bytes:
    """Export by one of torch's exporters as a user does, with all its defaults."""
    sink, names = io.BytesIO(), {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dummy: Sequence[Tensor] = (torch.zeros(1, *((3, side, side) if isinstance(side, int) else side)),)
        dynamo = exporter == "dynamo"
        program = torch.onnx.export(
            network, tuple(dummy), None if dynamo else sink, dynamo=dynamo, opset_version=opset, verbose=False, **names
        )
        if program is not None:
            return bytes(program.model_proto.SerializeToString())
    return sink.getvalue()
