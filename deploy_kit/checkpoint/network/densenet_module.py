"""DenseNetSpec → torch.nn.Module. The forward pass as the spec states it, nothing else: no training tricks, no loading.

Parameter names are torchvision's (``features.denseblock1.denselayer1.norm1.weight``), so tensors under canonical names
load strictly.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, HeadLayer, Order

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
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
        norm = _NORMS[spec.ndim - 1]
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

    def __init__(self, width: int, block: DenseBlock, spec: DenseNetSpec) -> None:
        """Map (N, width, …) to (N, width + layers · growth, …)."""
        super().__init__()
        self.append = spec.concat == "append"
        for index in range(block.layers):
            layer = DenseLayer(width + index * block.growth, block, spec)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            new = layer(torch.cat(features, 1))
            features = [*features, new] if self.append else [new, *features]
        return torch.cat(features, 1)


class Transition(nn.Module):
    """BN-ReLU-conv1×1 and a 2×2 pool between two dense blocks."""

    def __init__(self, width: int, out: int, spec: DenseNetSpec) -> None:
        """Map (N, width, H, W) to (N, out, H // 2, W // 2)."""
        super().__init__()
        if spec.transition_norm:
            self.norm = _NORMS[spec.ndim - 1](width, eps=spec.eps)
        kernel = [spec.transition_kernel] * spec.ndim
        self.conv = conv(width, out, kernel, bias=spec.transition_bias, groups=spec.transition_groups)
        self.activation = activation(*spec.active("outer") if spec.transition_relu else ("none", 0.0))
        self.kind, self.order = spec.transition_pool, spec.transition_order
        self.pool = (_MAX_POOLS if spec.transition_pool == "max" else _AVG_POOLS)[spec.ndim - 1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(ordered(getattr(self, "norm", None), self.activation, self.order, x))
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


def _chain(steps: tuple[HeadLayer, ...], width: int, spec: DenseNetSpec) -> tuple[nn.Sequential, int]:
    """Build one line of head layers from vectors of `width`; return it and the width that it ends with."""
    chain = nn.Sequential()
    for step in steps:
        if step.kind == "linear":
            chain.append(nn.Linear(width, step.channels, bias=step.bias))
        elif step.kind == "norm":
            chain.append(nn.BatchNorm1d(width, eps=spec.hidden_eps or spec.eps))
        else:
            chain.append(Activation(*spec.active("hidden")))
        width = step.channels or width
    return chain, width


class DenseNet(nn.Module):
    """A DenseNet; returns the logits (N, classes) of its head, a tuple of them for several, the features for none."""

    def __init__(self, spec: DenseNetSpec) -> None:
        """Build the layers of `spec` with torch's default initial weights."""
        super().__init__()
        self.spec = spec
        self.outer = activation(*spec.active("outer"))
        norm, read = _NORMS[spec.ndim - 1], spec.in_channels * spec.input_repeats
        if spec.input_norm:
            self.normalize = InputNorm(read, spec.ndim)
        self.features = nn.Sequential()
        for index, step in enumerate(spec.stem):
            layer = conv(read, step.channels, step.kernel, stride=step.stride, bias=step.bias)
            self.features.add_module(f"conv{index}", layer)
            if step.norm:
                self.features.add_module(f"norm{index}", norm(step.channels, eps=spec.eps))
            if step.relu:
                self.features.add_module(f"relu{index}", Activation(*spec.active("stem")))
            read = step.channels
        if spec.stem_pool != "none":
            self.features.add_module("pool0", StemPool(spec.stem_pool, spec.ndim))
        for index, block in enumerate(spec.blocks, start=1):
            self.features.add_module(f"denseblock{index}", DenseBlockModule(read, block, spec))
            read += block.layers * block.growth
            if index <= len(spec.transitions):
                out = spec.transitions[index - 1]
                self.features.add_module(f"transition{index}", Transition(read, out, spec))
                read = out
        if spec.final_norm and spec.final_order == "activation_first" and spec.final_relu:
            self.features.add_module("relu5", Activation(*spec.active("outer")))
        if spec.final_norm:
            self.features.add_module("norm5", norm(read, eps=spec.eps))
        self._add_heads(self._pooled(read))

    def _pooled(self, width: int) -> int:
        """Return the length of the vector that the head reads."""
        if self.spec.head_pool == "flatten":
            assert self.spec.map_side is not None
            return width * int(self.spec.map_side**self.spec.ndim)
        return 2 * width if self.spec.head_pool in ("max_avg", "avg_max") else width

    def _add_heads(self, width: int) -> None:
        spec = self.spec
        self.trunk, width = _chain(spec.trunk, width, spec)
        if is_plain(spec):
            self.classifier: nn.Module = _chain(spec.heads[0].layers, width, spec)[0][0]
        elif len(spec.heads) == 1:
            self.head = _chain(spec.heads[0].layers, width, spec)[0]
        else:
            self.heads = nn.ModuleList(_chain(head.layers, width, spec)[0] for head in spec.heads)

    def _pool(self, x: Tensor) -> Tensor:
        kind = self.spec.head_pool
        if kind == "flatten":
            return torch.flatten(x, 1)
        axes = tuple(range(2, x.dim()))
        # The axes stay until all parts are there: runtimes have integer kernels for that form of the average alone.
        poolings = {"max": lambda: x.amax(axes, keepdim=True), "avg": lambda: x.mean(axes, keepdim=True)}
        parts = [poolings[part]() for part in kind.removesuffix("_mean").split("_")]
        if kind == "avg_max_mean":
            return torch.flatten(0.5 * (parts[0] + parts[1]), 1)
        return torch.flatten(torch.cat(parts, 1) if len(parts) > 1 else parts[0], 1)

    def _activated(self, logits: Tensor) -> Tensor:
        kind = self.spec.head_activation
        if kind == "none":
            return logits
        last: Callable[..., Tensor] = torch.softmax if kind == "softmax" else torch.log_softmax
        return torch.sigmoid(logits) if kind == "sigmoid" else last(logits, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        spec = self.spec
        x = torch.cat([x] * spec.input_repeats, 1) if spec.input_repeats > 1 else x
        x = self.features(self.normalize(x) if spec.input_norm else x)
        active = spec.final_relu and (spec.final_order == "norm_first" or not spec.final_norm)
        vector = self._pool(self.outer(x) if active else x)
        vector = self.trunk(functional.normalize(vector) if spec.feature_norm == "l2" else vector)
        if not self.spec.heads:
            return vector  # type: ignore[no-any-return]
        if len(self.spec.heads) > 1:
            return tuple(self._activated(head(vector)) for head in self.heads)
        return self._activated(self.classifier(vector) if is_plain(self.spec) else self.head(vector))


def is_plain(spec: DenseNetSpec) -> bool:
    """Return whether the head is one linear layer alone, as in the paper."""
    return len(spec.heads) == 1 and not spec.trunk and [step.kind for step in spec.heads[0].layers] == ["linear"]
