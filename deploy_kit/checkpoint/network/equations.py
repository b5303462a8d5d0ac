"""A DenseNet written out as equations on the file's own tensors: a second, independent path to the same logits.

It shares nothing with `densenet_module` but the spec: BN, ReLU and the blur are written out, tensors are taken by their
names in the file. A name mapped to the wrong tensor, or a layer that the module computes otherwise, shows as a
difference.

Sources: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, section 3; of decoders those of
`decoder_module`.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from deploy_kit.records.densenet import Decoder, DenseBlock, DenseNetSpec, HeadLayer, Order

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_MAX = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_GROUP_EPS = 1e-5  # torch's
_AVG = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


class Equations:
    """Forward pass of one spec on one file's tensors."""

    def __init__(
        self, spec: DenseNetSpec, names: Mapping[str, str], tensors: Mapping[str, Tensor], *, channels_last: bool
    ) -> None:
        """Bind a spec to a file's tensors.

        Args:
            spec: The network.
            names: Canonical name → name in the file.
            tensors: The file's tensors by their names in it.
            channels_last: Whether its linear layers read flattened maps as (H, W, C).
        """
        self.spec, self.names, self.tensors, self.channels_last = spec, names, tensors, channels_last

    @torch.no_grad()
    def logits(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute (N, classes) of each head, before any last activation; the pooled features where there is none.

        With a decoder there is one, of (N, classes, H, W).
        """
        spec, skips = self.spec, [x]
        x = torch.cat([x] * spec.input_repeats, 1)
        if spec.input_norm:
            mean, std = (self._of(f"normalize.{part}", x).flatten() for part in ("mean", "std"))
            x = (x - _per_channel(mean, x)) / _per_channel(std, x)
        x = self._stem(x, skips)
        for number, block in enumerate(spec.blocks, start=1):
            width = x.shape[1]
            x = self._block(x, f"features.denseblock{number}", block)
            if number <= len(spec.transitions):
                x = self._transition(x, f"features.transition{number}", skips)
        last = self._outer if spec.final_relu else _same
        x = self._normed(x, "features.norm5" if spec.final_norm else None, last, spec.final_order)
        if spec.decoder is not None:
            x = self._new(x, width) if spec.decoder.reads_new else x
            climb = self._decoded if spec.decoder.pyramid is None else self._merged
            x = self._conv(climb(x, skips[::-1], spec.decoder), "classifier")
            return (_resized(x, [spec.decoder.map_scale * side for side in x.shape[2:]], "corners"),)
        vector = self._pooled(x)
        if spec.feature_norm == "l2":
            vector = vector / vector.square().sum(1, keepdim=True).sqrt().clamp(min=1e-12)
        vector = self._steps(vector, "trunk", spec.trunk)
        rows = [self._steps(vector, self._head(at), head.layers) for at, head in enumerate(spec.heads)]
        return tuple(rows) if rows else (vector,)

    def answers(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the network's outputs: `logits` behind its last activation."""
        last: dict[str, Callable[[Tensor], Tensor]] = {
            "none": lambda row: row,
            "sigmoid": lambda row: 1 / (1 + torch.exp(-row)),
            "softmax": lambda row: torch.exp(row - row.logsumexp(1, keepdim=True)),
            "log_softmax": lambda row: row - row.logsumexp(1, keepdim=True),
        }
        return tuple(last[self.spec.head_activation](row) for row in self.logits(x))

    def _stem(self, x: Tensor, skips: list[Tensor]) -> Tensor:
        spec = self.spec
        for at, step in enumerate(spec.stem):
            x = self._conv(x, f"features.conv{at}", stride=step.stride)
            x = self._norm(x, f"features.norm{at}") if step.norm else x
            x = _activated(x, *spec.active("stem")) if step.relu else x
        if spec.decoder is not None and not spec.decoder.dense:
            skips.append(x)
        if spec.stem_pool == "blur":
            x = _blurred(_MAX[spec.ndim](x, 3, 1, 1), spec.ndim)
        elif spec.stem_pool != "none":
            x = (_MAX if spec.stem_pool == "max" else _AVG)[spec.ndim](x, 3, 2, 1)
        return x

    def _decoded(self, x: Tensor, skips: list[Tensor], decoder: Decoder) -> Tensor:
        """Climb from the last map to the input's size along the encoder's maps, the smallest first."""
        above = [level.reads_all for level in decoder.levels[1:]] + [decoder.reads_all]
        for number, (level, skip, reads_all) in enumerate(zip(decoder.levels, skips, above, strict=False), start=1):
            name, sides = f"decoder.level{number}", skip.shape[2:]
            if level.block is None:
                x = _resized(x, sides, decoder.upsampling)
            else:
                x = self._enlarged(x, sides, f"{name}.up", late=decoder.up_crop == "end")
            if number <= len(self.spec.skips):
                x = torch.cat([x, skip] if decoder.skip_order == "up_first" else [skip, x], 1)
            if level.block is not None:
                width = x.shape[1]
                x = self._block(x, f"{name}.block", level.block)
                x = x if reads_all else self._new(x, width)
            for at, step in enumerate(level.convs):
                x = self._conv(x, f"{name}.block.conv{at}")
                x = self._norm(x, f"{name}.block.norm{at}") if step.norm else x
                x = _activated(x, *self.spec.active("stem")) if step.relu else x
        return x

    def _merged(self, x: Tensor, skips: list[Tensor], decoder: Decoder) -> Tensor:
        """Compute a feature pyramid and its branches; the i-th of four enlarges its map 3 - i times."""
        assert decoder.pyramid is not None
        maps = [self._conv(x, "decoder.laterals.0")]
        for at, skip in enumerate(skips[:3], start=1):
            maps.append(
                _resized(maps[-1], skip.shape[2:], decoder.upsampling) + self._conv(skip, f"decoder.laterals.{at}")
            )
        rows = []
        for at, y in enumerate(maps):
            for step in range(max(3 - at, 1)):
                name = f"decoder.branches.{at}"
                y = self._conv(y, f"{name}.{2 * step}")
                y = self._group_norm(y, f"{name}.{2 * step + 1}", decoder.pyramid.groups).clamp(min=0)
                y = _resized(y, [2 * side for side in y.shape[2:]], "corners") if at < 3 else y
            rows.append(y)
        return sum(rows[1:], rows[0]) if decoder.pyramid.merge == "add" else torch.cat(rows, 1)

    def _group_norm(self, x: Tensor, name: str, groups: int) -> Tensor:
        """Normalize each group of channels of each image; Wu and He, "Group Normalization", ECCV 2018, equation 1."""
        grouped = x.reshape(len(x), groups, -1)
        centered = grouped - grouped.mean(2, keepdim=True)
        normed = centered * (centered.square().mean(2, keepdim=True) + _GROUP_EPS).rsqrt()
        weight, bias = (_per_channel(self._of(f"{name}.{part}", x), x) for part in ("weight", "bias"))
        return normed.reshape(x.shape) * weight + bias

    def _enlarged(self, x: Tensor, sides: Sequence[int], name: str, *, late: bool) -> Tensor:
        """Compute a transposed convolution of stride 2 as a sum: pixel 2 i + a reads W[a] of pixel i."""
        weight = self._of(f"{name}.weight", x)
        sizes = [2 * (n - 1) + k for n, k in zip(x.shape[2:], weight.shape[2:], strict=True)]
        full = x.new_zeros(len(x), weight.shape[1], *sizes)
        for place in itertools.product(*(range(side) for side in weight.shape[2:])):
            taken: Any = (..., *(slice(a, a + 2 * n - 1, 2) for a, n in zip(place, x.shape[2:], strict=True)))
            at: Any = (..., *place)
            full[taken] += torch.einsum("nc...,cd->nd...", x, weight[at])
        if f"{name}.bias" in self.names:
            full = full + _per_channel(self._of(f"{name}.bias", x), full)
        over = [(full.shape[2 + axis] - sides[axis] + late) // 2 for axis in range(x.dim() - 2)]
        kept: Any = (..., *(slice(a, a + side) for a, side in zip(over, sides, strict=True)))
        return full[kept]

    def _block(self, x: Tensor, name: str, shape: DenseBlock) -> Tensor:
        for layer in range(1, shape.layers + 1):
            new = self._dense(x, f"{name}.denselayer{layer}", shape)
            x = torch.cat([x, new] if self.spec.concat == "append" else [new, x], 1)
        return x

    def _new(self, x: Tensor, width: int) -> Tensor:
        """Return what a block has added to the `width` channels that it read."""
        return x[:, width:] if self.spec.concat == "append" else x[:, : x.shape[1] - width]

    def _dense(self, x: Tensor, name: str, shape: DenseBlock) -> Tensor:
        order = self.spec.dense_order
        x = self._conv(self._normed(x, f"{name}.norm1", self._inner, order), f"{name}.conv1")
        if shape.bottleneck is None:
            return x
        x = self._normed(x, f"{name}.norm2" if shape.bottleneck_norm else None, self._inner, order)
        return self._conv(x, f"{name}.conv2")

    def _transition(self, x: Tensor, name: str, skips: list[Tensor]) -> Tensor:
        spec, before = self.spec, x
        norm = f"{name}.norm" if spec.transition_norm else None
        x = self._normed(x, norm, self._outer if spec.transition_relu else _same, spec.transition_order)
        skips.append(before if spec.decoder is not None and spec.decoder.dense else x)
        x = self._conv(x, f"{name}.conv")
        pools: dict[str, Callable[..., Tensor]] = {"avg": _AVG[spec.ndim], "max": _MAX[spec.ndim]}
        return pools[spec.transition_pool](x, 2) if spec.transition_pool in pools else x

    def _pooled(self, x: Tensor) -> Tensor:
        kind = self.spec.head_pool
        if kind == "flatten":
            return (x.movedim(1, -1) if self.channels_last else x).flatten(1)
        flat = x.flatten(2)
        vectors = {"avg": flat.mean(2), "max": flat.max(2).values}
        if kind == "avg_max_mean":
            return (vectors["avg"] + vectors["max"]) / 2
        return torch.cat([vectors[part] for part in kind.split("_")], 1)

    def _steps(self, x: Tensor, name: str, steps: tuple[HeadLayer, ...]) -> Tensor:
        for at, step in enumerate(steps):
            own = name if name == "classifier" else f"{name}.{at}"
            if step.kind == "activation":
                x = _activated(x, *self.spec.active("hidden"))
            elif step.kind == "norm":
                x = self._norm(x, own, self.spec.hidden_eps)
            else:
                x = x @ self._of(f"{own}.weight", x).flatten(1).T
                x = x + self._of(f"{own}.bias", x) if f"{own}.bias" in self.names else x
        return x

    def _head(self, at: int) -> str:
        if "classifier.weight" in self.names:
            return "classifier"
        return "head" if len(self.spec.heads) == 1 else f"heads.{at}"

    def _inner(self, x: Tensor) -> Tensor:
        return _activated(x, *self.spec.active("dense"))

    def _outer(self, x: Tensor) -> Tensor:
        return _activated(x, *self.spec.active("outer"))

    def _normed(self, x: Tensor, name: str | None, active: Callable[[Tensor], Tensor], order: Order) -> Tensor:
        """Apply a BN, where there is one, and an activation, the one before the other or behind it."""
        if name is None:
            return active(x)
        return active(self._norm(x, name)) if order == "norm_first" else self._norm(active(x), name)

    def _of(self, name: str, like: Tensor) -> Tensor:
        return self.tensors[self.names[name]].to(like.dtype)

    def _conv(self, x: Tensor, name: str, stride: Any = 1) -> Tensor:
        weight = self._of(f"{name}.weight", x)
        bias = self._of(f"{name}.bias", x) if f"{name}.bias" in self.names else None
        padding = [side // 2 for side in weight.shape[2:]]
        convolve: Callable[..., Tensor] = _CONV[weight.dim() - 2]
        return convolve(x, weight, bias, stride, padding, 1, x.shape[1] // weight.shape[1])

    def _norm(self, x: Tensor, name: str, eps: float | None = None) -> Tensor:
        mean, variance = (self._of(f"{name}.{part}", x) for part in ("running_mean", "running_var"))
        scale = (variance + (eps or self.spec.eps)).rsqrt()
        scale = scale * self._of(f"{name}.weight", x) if f"{name}.weight" in self.names else scale
        shift = self._of(f"{name}.bias", x) if f"{name}.bias" in self.names else torch.zeros_like(mean)
        return (x - _per_channel(mean, x)) * _per_channel(scale, x) + _per_channel(shift, x)


def _same(x: Tensor) -> Tensor:
    return x


def _per_channel(vector: Tensor, x: Tensor) -> Tensor:
    return vector.to(x.dtype).reshape(-1, *[1] * (x.dim() - 2))


def _activated(x: Tensor, kind: str, slope: float) -> Tensor:
    if kind == "relu":
        return x.clamp(min=0)
    if kind == "leaky_relu":
        return torch.where(x < 0, slope * x, x)
    if kind == "elu":
        return torch.where(x < 0, torch.expm1(x.clamp(max=0)), x)
    if kind == "silu":
        return x * torch.sigmoid(x)
    return x * torch.special.ndtr(x) if kind == "gelu" else x


def _resized(x: Tensor, sides: Sequence[int], kind: str) -> Tensor:
    """Resize axis by axis: pixel i of m takes pixel ⌊i n / m⌋ of n (``nearest``), or lies between two.

    These are the ones around (i + 1/2) n / m - 1/2 (``bilinear``), or around i (n - 1) / (m - 1) (``corners``).
    """
    for axis, side in enumerate(sides, start=2):
        n = x.shape[axis]
        if kind == "nearest":
            x = x.index_select(axis, torch.arange(side) * n // side)
            continue
        pixels = torch.arange(side, dtype=x.dtype)
        place = (pixels + 0.5) * n / side - 0.5 if kind == "bilinear" else pixels * (n - 1) / max(side - 1, 1)
        place = place.clamp(min=0)
        low = place.long()
        share = (place - low).reshape(-1, *[1] * (x.dim() - 1 - axis))
        high = x.index_select(axis, (low + 1).clamp(max=n - 1))
        x = x.index_select(axis, low) * (1 - share) + high * share
    return x


def _blurred(x: Tensor, ndim: int) -> Tensor:
    """Average neighbours with weights (1, 2, 1) / 4 along each axis, the border reflected; keep every second pixel."""
    for axis in range(2, 2 + ndim):
        size = x.shape[axis]
        index = torch.arange(-1, size + 1).abs()
        index = torch.where(index >= size, 2 * (size - 1) - index, index)
        wide = x.index_select(axis, index)
        parts = [wide.narrow(axis, start, size) for start in range(3)]
        x = (parts[0] + 2 * parts[1] + parts[2]) / 4
        x = x.index_select(axis, torch.arange(0, size, 2))
    return x
