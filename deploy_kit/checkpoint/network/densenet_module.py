"""DenseNetSpec → torch.nn.Module. The forward pass as the spec states it, nothing else: no training tricks, no loading.

Parameter names are torchvision's (``features.denseblock1.denselayer1.norm1.weight``), so tensors under canonical names
load strictly.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit.checkpoint.network.decoder_module import DecoderModule, PyramidModule, enlarged
from deploy_kit.checkpoint.network.dense_modules import (
    NORMS,
    Activation,
    DenseBlockModule,
    InputNorm,
    StemPool,
    Transition,
    activation,
    conv,
    named_convs,
)
from deploy_kit.records.densenet import DenseNetSpec, HeadLayer


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
    """A DenseNet; returns the logits (N, classes) of its head, a tuple of them for several, the features for none.

    With a decoder it returns a map of them, (N, classes, H, W).
    """

    def __init__(self, spec: DenseNetSpec) -> None:
        """Build the layers of `spec` with torch's default initial weights."""
        super().__init__()
        self.spec = spec
        self.outer = activation(*spec.active("outer"))
        read = spec.in_channels * spec.input_repeats
        if spec.input_norm:
            self.normalize = InputNorm(read, spec.ndim)
        self.features = nn.Sequential()
        for name, part in named_convs(spec.stem, read, spec):
            self.features.add_module(name, part)
        read = spec.stem_channels
        if spec.stem_pool != "none":
            self.features.add_module("pool0", StemPool(spec.stem_pool, spec.ndim))
        for index, block in enumerate(spec.blocks, start=1):
            new_only = index == len(spec.blocks) and spec.decoder is not None and spec.decoder.reads_new
            self.features.add_module(f"denseblock{index}", DenseBlockModule(read, block, spec, new_only=new_only))
            read += block.layers * block.growth
            if index <= len(spec.transitions):
                out = spec.transitions[index - 1]
                self.features.add_module(f"transition{index}", Transition(read, out, spec))
                read = out
        if spec.final_norm and spec.final_order == "activation_first" and spec.final_relu:
            self.features.add_module("relu5", Activation(*spec.active("outer")))
        if spec.final_norm:
            self.features.add_module("norm5", NORMS[spec.ndim - 1](read, eps=spec.eps))
        if spec.decoder is not None:
            pyramid = spec.decoder.pyramid
            self.decoder = DecoderModule(spec) if pyramid is None else PyramidModule(spec, pyramid)
            head = spec.heads[0].layers[0]
            self.classifier: nn.Module = conv(self.decoder.width, head.channels, spec.decoder.kernel, bias=head.bias)
        else:
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
            self.classifier = _chain(spec.heads[0].layers, width, spec)[0][0]
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

    def _encoded(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the last map, and the maps that join the decoder, from the smallest up, the input last."""
        assert self.spec.decoder is not None
        dense, skips = self.spec.decoder.dense, [x]
        n_stem = sum(1 + step.norm + step.relu for step in self.spec.stem)
        for at, part in enumerate(self.features, start=1):
            if isinstance(part, Transition):
                skips.insert(0, x if dense else part.activated(x))
                x = part(x) if dense else part(skips[0], is_active=True)
            else:
                x = part(x)
            if not dense and at == n_stem:
                skips.insert(0, x)
        return x, skips

    def _activated(self, logits: Tensor) -> Tensor:
        kind = self.spec.head_activation
        if kind == "none":
            return logits
        last: Callable[..., Tensor] = torch.softmax if kind == "softmax" else torch.log_softmax
        return torch.sigmoid(logits) if kind == "sigmoid" else last(logits, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        spec = self.spec
        x = torch.cat([x] * spec.input_repeats, 1) if spec.input_repeats > 1 else x
        x = self.normalize(x) if spec.input_norm else x
        active = spec.final_relu and (spec.final_order == "norm_first" or not spec.final_norm)
        if spec.decoder is not None:
            x, skips = self._encoded(x)
            x = self.classifier(self.decoder(self.outer(x) if active else x, skips))
            scale = spec.decoder.map_scale
            return self._activated(enlarged(x, scale) if scale > 1 else x)
        x = self.features(x)
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
