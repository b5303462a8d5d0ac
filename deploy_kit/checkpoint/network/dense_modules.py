"""Parts of a DenseNet as torch modules: convolutions, dense layers and blocks, transitions, pools.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Order, StemConv

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVG_POOLS = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)


def activation(kind: str, slope: float) -> Callable[[Tensor], Tensor]:
    """Return an activation by its name; `slope` is that of a leaky one below zero."""
    named: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": torch.relu,
        "leaky_relu": nn.LeakyReLU(slope),
        "elu": functional.elu,
        "silu": functional.silu,
        "gelu": functional.gelu,
        "none": lambda x: x,
    }
    return named[kind]


def conv(read: int, out: int, kernel: Sequence[int], *, stride: Any = 1, bias: bool, groups: int = 1) -> nn.Module:
    """Build a convolution over as many axes as its kernel has sides, padded to keep the size at stride 1."""
    build: Callable[..., nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(kernel) - 1]
    padding = tuple(side // 2 for side in kernel)
    return build(read, out, tuple(kernel), stride=stride, padding=padding, bias=bias, groups=groups)


def ordered(norm: nn.Module | None, act: Callable[[Tensor], Tensor], order: Order, x: Tensor) -> Tensor:
    """Apply a BN, where there is one, and an activation in the order that the spec states."""
    if norm is None:
        return act(x)
    result: Tensor = act(norm(x)) if order == "norm_first" else norm(act(x))
    return result


class DenseLayer(nn.Module):
    """One composite function H: BN-ReLU-conv1×1-BN-ReLU-conv3×3, or BN-ReLU-conv3×3 without a bottleneck."""

    def __init__(self, width: int, block: DenseBlock, spec: DenseNetSpec) -> None:
        """Map (N, width, …) to (N, block.growth, …)."""
        super().__init__()
        norm = NORMS[spec.ndim - 1]
        self.activation, self.order = activation(*spec.active("dense")), spec.dense_order
        self.norm1 = norm(width, eps=spec.eps)
        wide: dict[str, Any] = {"bias": block.biases[1], "groups": block.groups[1]}
        if block.bottleneck is None:
            self.conv1 = conv(width, block.growth, block.kernel, **wide)
        else:
            ones = [1] * spec.ndim
            self.conv1 = conv(width, block.bottleneck, ones, bias=block.biases[0], groups=block.groups[0])
            if block.bottleneck_norm:
                self.norm2 = norm(block.bottleneck, eps=spec.eps)
            self.conv2 = conv(block.bottleneck, block.growth, block.kernel, **wide)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(ordered(self.norm1, self.activation, self.order, x))
        if hasattr(self, "conv2"):
            x = self.conv2(ordered(getattr(self, "norm2", None), self.activation, self.order, x))
        return x


class DenseBlockModule(nn.Module):
    """Layers that each read the concatenation of the block's input and all earlier outputs."""

    def __init__(self, width: int, block: DenseBlock, spec: DenseNetSpec, *, new_only: bool = False) -> None:
        """Map (N, width, …) to (N, width + layers · growth, …), or to what is new in it alone."""
        super().__init__()
        self.append, self.new_only = spec.concat == "append", new_only
        for index in range(block.layers):
            layer = DenseLayer(width + index * block.growth, block, spec)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            new = layer(torch.cat(features, 1))
            features = [*features, new] if self.append else [new, *features]
        if self.new_only:
            features = features[1:] if self.append else features[:-1]
        return torch.cat(features, 1)


class Transition(nn.Module):
    """BN-ReLU-conv1×1 and a 2×2 pool between two dense blocks."""

    def __init__(self, width: int, out: int, spec: DenseNetSpec) -> None:
        """Map (N, width, H, W) to (N, out, H // 2, W // 2)."""
        super().__init__()
        if spec.transition_norm:
            self.norm = NORMS[spec.ndim - 1](width, eps=spec.eps)
        kernel = [spec.transition_kernel] * spec.ndim
        self.conv = conv(width, out, kernel, bias=spec.transition_bias, groups=spec.transition_groups)
        self.activation = activation(*spec.active("outer") if spec.transition_relu else ("none", 0.0))
        self.kind, self.order = spec.transition_pool, spec.transition_order
        self.pool = (_MAX_POOLS if spec.transition_pool == "max" else _AVG_POOLS)[spec.ndim - 1]

    def activated(self, x: Tensor) -> Tensor:
        """Return what its convolution reads, (N, width, H, W)."""
        return ordered(getattr(self, "norm", None), self.activation, self.order, x)

    def forward(self, x: Tensor, *, is_active: bool = False) -> Tensor:
        x = self.conv(x if is_active else self.activated(x))
        return x if self.kind == "none" else self.pool(x, 2)


class StemPool(nn.Module):
    """The pool that ends the stem: 3×3 with stride 2, or a 3×3 max pool of stride 1 and a blur of stride 2.

    Source of the blur: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019: weights (1, 2, 1) / 4
    along each axis, the border reflected.
    """

    def __init__(self, kind: str, ndim: int) -> None:
        """Map (N, C, H, W) to (N, C, ⌈H / 2⌉, ⌈W / 2⌉)."""
        super().__init__()
        self.kind, self.ndim = kind, ndim

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor
        if self.kind == "blur":
            x = functional.pad(_MAX_POOLS[self.ndim - 1](x, 3, 1, 1), [1] * 2 * self.ndim, mode="reflect")
            convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.ndim - 1]
            weights = self._blur().to(x.dtype).expand(x.shape[1], 1, *[3] * self.ndim)
            pooled = convolve(x, weights, stride=2, groups=x.shape[1])
        else:
            pooled = (_MAX_POOLS if self.kind == "max" else _AVG_POOLS)[self.ndim - 1](x, 3, 2, 1)
        return pooled

    def _blur(self) -> Tensor:
        """Return the kernel of (1, 2, 1) / 4 along each axis."""
        line = torch.tensor([0.25, 0.5, 0.25])
        kernel = line
        for _ in range(self.ndim - 1):
            kernel = kernel[..., None] * line
        return kernel


class Activation(nn.Module):
    """An activation as a module, for chains."""

    def __init__(self, kind: str, slope: float) -> None:
        """Choose it by its name; `slope` is that of a leaky one below zero."""
        super().__init__()
        self.function = activation(kind, slope)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class InputNorm(nn.Module):
    """Subtract a mean and divide by a standard deviation, each per channel and kept in the file."""

    def __init__(self, channels: int, ndim: int) -> None:
        """Map (N, channels, …) to the same shape."""
        super().__init__()
        self.shape = (channels, *[1] * ndim)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        return (x - mean.reshape(self.shape)) / std.reshape(self.shape)


def named_convs(steps: Iterable[StemConv], read: int, spec: DenseNetSpec) -> list[tuple[str, nn.Module]]:
    """Build convolutions in a row, each with its BN and its activation: ``conv0``, ``norm0``, ``relu0`` and so on."""
    row: list[tuple[str, nn.Module]] = []
    for index, step in enumerate(steps):
        row.append((f"conv{index}", conv(read, step.channels, step.kernel, stride=step.stride, bias=step.bias)))
        if step.norm:
            row.append((f"norm{index}", NORMS[spec.ndim - 1](step.channels, eps=spec.eps)))
        if step.relu:
            row.append((f"relu{index}", Activation(*spec.active("stem"))))
        read = step.channels
    return row
