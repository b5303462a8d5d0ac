"""A DenseNet as a record: everything that decides its numbers, weights aside."""

from dataclasses import dataclass
from typing import Literal

StemPool = Literal["none", "max", "avg", "blur"]
HeadPool = Literal["avg", "max", "max_avg", "flatten"]
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "none"]
HeadActivation = Literal["none", "sigmoid", "softmax", "log_softmax"]


@dataclass(frozen=True, kw_only=True)
class StemConv:
    """One convolution of the stem; a deep stem has three.

    Attributes:
        channels: It gives.
        kernel: Its sides, one for each axis of the image, in px.
        stride: One for each axis.
        bias: Whether it has one.
        norm: A BN follows.
        relu: An activation follows (behind the BN, where there is one).
    """

    channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    bias: bool = False
    norm: bool = True
    relu: bool = True


@dataclass(frozen=True, kw_only=True)
class DenseBlock:
    """One dense block.

    Attributes:
        layers: Number of dense layers.
        growth: Channels each layer adds (the paper's k).
        bottleneck: Channels between the 1×1 and the 3×3 convolution; None where there is no bottleneck.
        kernel: Sides of the wide convolution, one for each axis; (3, 3) in the paper.
        biases: Of the 1×1 and of the wide convolution; of the wide one alone (the second) without a bottleneck.
        groups: Likewise.
        bottleneck_norm: A BN stands between the two; not where it was folded into the first.
    """

    layers: int
    growth: int
    bottleneck: int | None
    kernel: tuple[int, ...] = (3, 3)
    biases: tuple[bool, bool] = (False, False)
    groups: tuple[int, int] = (1, 1)
    bottleneck_norm: bool = True


@dataclass(frozen=True, kw_only=True)
class HeadLayer:
    """One step behind the last map.

    Attributes:
        kind: ``linear``, ``norm`` (BN of a vector) or ``activation``.
        channels: It gives; of an activation 0.
        bias: Of a linear layer.
    """

    kind: Literal["linear", "norm", "activation"]
    channels: int = 0
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier: one linear layer, or a chain with BNs and activations between.

    Attributes:
        name: Of its output.
        layers: In order.
    """

    name: str
    layers: tuple[HeadLayer, ...]

    @property
    def classes(self) -> int:
        """Numbers it gives."""
        return next((step.channels for step in reversed(self.layers) if step.channels), 0)


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec:
    """Everything about a DenseNet that decides its numbers, weights aside.

    Attributes:
        in_channels: Channels of the input.
        stem: The convolutions before the first dense block.
        blocks: The dense blocks in order.
        transitions: Channels after each transition; one fewer than blocks.
        heads: The classifiers; none where the pooled features are the output.
        stem_pool: What ends the stem.
        eps: Epsilon of every BN.
        concat: Whether a dense layer's new channels come after the old ones, as in the paper, or before them.
        activation: Of the dense layers.
        outer_activation: Of stem, transitions and end.
        slope: Of leaky activations below zero.
        transition_norm: A BN opens each transition.
        transition_relu: An activation stands before each transition's convolution.
        transition_kernel: Side of its convolution.
        transition_bias: Whether that has one.
        transition_groups: Its groups.
        transition_pool: How a transition halves the map.
        final_norm: A BN follows the last block.
        final_relu: An activation follows that.
        head_pool: How the last map becomes a vector; ``max_avg`` is both, one after the other.
        head_activation: What follows the last linear layer.
        hidden_activation: Between linear layers.
        trunk: Steps that all heads share.
        map_side: Side that the last map must have, where it is flattened.
        input_norm: The file carries a mean and a std that are applied to the input first.
        sources: (fact, where it came from) for each fact that shapes alone do not give.
    """

    in_channels: int
    stem: tuple[StemConv, ...]
    blocks: tuple[DenseBlock, ...]
    transitions: tuple[int, ...]
    heads: tuple[Head, ...]
    stem_pool: StemPool = "none"
    eps: float = 1e-5
    concat: Literal["append", "prepend"] = "append"
    activation: Activation = "relu"
    outer_activation: Activation = "relu"
    slope: float = 0.01
    transition_norm: bool = True
    transition_relu: bool = True
    transition_kernel: int = 1
    transition_bias: bool = False
    transition_groups: int = 1
    transition_pool: Literal["avg", "max"] = "avg"
    final_norm: bool = True
    final_relu: bool = True
    head_pool: HeadPool = "avg"
    head_activation: HeadActivation = "none"
    hidden_activation: Activation = "relu"
    trunk: tuple[HeadLayer, ...] = ()
    map_side: int | None = None
    input_norm: bool = False
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def ndim(self) -> int:
        """Axes of the image: 1, 2 or 3."""
        return len(self.stem[0].kernel)

    @property
    def stem_channels(self) -> int:
        """Channels that the first block reads."""
        return self.stem[-1].channels

    @property
    def classes(self) -> int:
        """Numbers that the (first) head gives; the width of the features where there is none."""
        return self.heads[0].classes if self.heads else self.width

    @property
    def width(self) -> int:
        """Channels of the last map."""
        widths = [self.stem_channels]
        for index, block in enumerate(self.blocks):
            widths.append(widths[-1] + block.layers * block.growth)
            widths += self.transitions[index : index + 1]
        return widths[-1]

    @property
    def depth(self) -> int:
        """Layers with weights, counted as the paper does: DenseNet-121 has 121; a deep stem counts as one."""
        dense = sum(block.layers * (1 if block.bottleneck is None else 2) for block in self.blocks)
        chains = [self.trunk, *(head.layers for head in self.heads[:1])]
        linear = sum(step.kind == "linear" for chain in chains for step in chain)
        return 1 + dense + len(self.transitions) + linear

    @property
    def compressed(self) -> bool:
        """Whether a transition gives fewer channels than it reads."""
        width, fewer = self.stem_channels, False
        for block, out in zip(self.blocks, self.transitions, strict=False):
            fewer |= out < width + block.layers * block.growth
            width = out
        return fewer

    @property
    def title(self) -> str:
        """Name it as the paper would, e.g. ``DenseNet-BC-40 (k = 12)``."""
        letters = "B" * any(block.bottleneck is not None for block in self.blocks) + "C" * self.compressed
        family = f"DenseNet-{letters}" if letters else "DenseNet"
        growths = dict.fromkeys(str(block.growth) for block in self.blocks)
        axes = "" if self.ndim == 2 else f", {self.ndim}-D"
        return f"{family}-{self.depth} (k = {', '.join(growths)}{axes})"
