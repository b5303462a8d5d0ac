"""The architecture of a DenseNet as a record: everything that decides its output, except the weights."""

from dataclasses import dataclass
from typing import Literal

from deploy_kit.records.network_words import (
    Activation,
    FeatureNorm,
    HeadActivation,
    HeadPool,
    Merge,
    Order,
    SkipOrder,
    StemPool,
    TransitionPool,
    UpCrop,
    Upsampling,
)  # fmt: skip

__all__ = [
    "Activation",
    "Decoder",
    "DenseBlock",
    "DenseNetSpec",
    "FeatureNorm",
    "Head",
    "HeadActivation",
    "HeadLayer",
    "HeadPool",
    "Merge",
    "Order",
    "Pyramid",
    "SkipOrder",
    "StemConv",
    "StemPool",
    "TransitionPool",
    "UpCrop",
    "UpLevel",
    "Upsampling",
]


@dataclass(frozen=True, kw_only=True)
class StemConv:
    """One convolution of the stem, of which a deep one has three, or of a decoder that resizes.

    Attributes:
        channels: Number of output channels.
        kernel: Kernel size in px, one value for each spatial axis.
        stride: Stride in px, one value for each spatial axis.
        bias: Whether the convolution has a bias.
        norm: Whether a BN follows it.
        relu: Whether an activation follows it (after the BN, if there is one).
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
        growth: Channels that each layer adds (the paper's growth rate k).
        bottleneck: Channels between the 1×1 and the wide convolution; None where layers have no bottleneck.
        kernel: Kernel size of the wide convolution, one value for each spatial axis; (3, 3) in the paper.
        biases: Whether the 1×1 and the wide convolution have a bias; without a bottleneck only the second value counts.
        groups: Groups of the 1×1 and of the wide convolution; without a bottleneck only the second value counts.
        bottleneck_norm: Whether a BN stands between the two convolutions; False where it was folded into the first.
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
    """One layer after the last feature map has become a vector.

    Attributes:
        kind: Kind of layer: ``linear``, ``norm`` (BN of a vector) or ``activation``.
        channels: Number of output features; 0 for an activation.
        bias: Whether a linear layer has a bias.
    """

    kind: Literal["linear", "norm", "activation"]
    channels: int = 0
    bias: bool = True


@dataclass(frozen=True, kw_only=True)
class Head:
    """A classifier: one linear layer, or several with BNs and activations between them.

    Attributes:
        name: Name of its output.
        layers: Layers in order of computation.
    """

    name: str
    layers: tuple[HeadLayer, ...]

    @property
    def classes(self) -> int:
        """Number of classes, which is the width of its output."""
        return next((step.channels for step in reversed(self.layers) if step.channels), 0)


@dataclass(frozen=True, kw_only=True)
class UpLevel:
    """One level of a decoder: what lies below is enlarged, joined with the encoder's map of that size, and computed on.

    Attributes:
        channels: Channels of the enlarged map; those of what lies below where it is resized.
        kernel: Kernel of the transposed convolution (stride 2) that enlarges it; empty where it is resized.
        bias: Whether that convolution has a bias.
        reads_all: Whether it reads all maps of the dense block below, or the new ones alone, as in the paper.
        block: Dense block that follows the joint; None where convolutions do.
        convs: Those convolutions, in order.
    """

    channels: int
    kernel: tuple[int, ...] = ()
    bias: bool = True
    reads_all: bool = False
    block: DenseBlock | None = None
    convs: tuple[StemConv, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pyramid:
    """A feature pyramid: the encoder's last four maps brought to one width, each added to the enlarged one below.

    A branch of 3×3 convolutions, each with a group norm and a ReLU, brings every map to the size of the largest.

    Attributes:
        channels: Channels of its maps.
        branch: Channels of each branch.
        merge: Whether the branches are added or concatenated.
        groups: Groups of the group norms.
    """

    channels: int
    branch: int
    merge: Merge
    groups: int = 32


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """What follows the last block where the output is a map of classes: a path up to the size of the input.

    Attributes:
        levels: Levels from the smallest map up; empty where a pyramid takes their place.
        kernel: Kernel of the last convolution, which gives the classes.
        reads_all: Whether it reads all maps of the last dense block, as in the paper, or the new ones alone.
        skip_order: Whether the enlarged maps come before the encoder's in their concatenation, or behind them.
        up_crop: Which pixels stay of the odd number that a transposed convolution of kernel 3 gives: from the start, as
            the paper's center crop has it, or to the end, as padding 1 with output padding 1 has it.
        upsampling: Interpolation, where maps are resized.
        pyramid: A feature pyramid in place of levels.
        map_scale: How many times larger the output is than what the last convolution gives, bilinearly, corners on
            corners.
    """

    levels: tuple[UpLevel, ...]
    kernel: tuple[int, ...]
    reads_all: bool = True
    skip_order: SkipOrder = "up_first"
    up_crop: UpCrop = "start"
    upsampling: Upsampling = "nearest"
    pyramid: Pyramid | None = None
    map_scale: int = 1

    @property
    def dense(self) -> bool:
        """Whether its levels are dense blocks behind transposed convolutions, as in FC-DenseNet."""
        return bool(self.levels) and self.levels[0].block is not None

    @property
    def reads_new(self) -> bool:
        """Whether it reads of the encoder's last block the new maps alone."""
        return self.dense and not self.levels[0].reads_all


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec:
    """Architecture of a DenseNet: everything that decides its output, except the weights.

    Attributes:
        in_channels: Number of input channels.
        stem: Convolutions before the first dense block, in order.
        blocks: Dense blocks in order.
        transitions: Output channels of each transition; one fewer than there are blocks.
        heads: Classifiers; empty where the pooled features are the output. Of a network with a decoder the one whose
            linear layer is its last convolution.
        stem_pool: Pooling at the end of the stem.
        eps: Epsilon of every BN.
        hidden_eps: Epsilon of the BNs between linear layers; None where it is that of all others.
        concat: Whether a dense layer's new channels are appended to the earlier ones, as in the paper, or prepended.
        activation: Activation within dense layers.
        outer_activation: Activation of the stem, of transitions and after the last block.
        stem_activation: Activation of the stem, where it is another one.
        slope: Slope of leaky activations for negative inputs.
        stem_slope: The same in the stem, outer_slope in all else outside of dense layers, hidden_slope between linear
            layers, where it is another one.
        outer_slope: See there.
        hidden_slope: See there.
        dense_order: Whether a dense layer's BNs come before their activations, as in the paper, or behind them.
        transition_order: The same of a transition's BN.
        transition_norm: Whether each transition begins with a BN.
        transition_relu: Whether an activation precedes each transition's convolution.
        transition_kernel: Kernel size of a transition's convolution, the same for all axes, in px.
        transition_bias: Whether a transition's convolution has a bias.
        transition_groups: Groups of a transition's convolution.
        transition_pool: Pooling with which a transition halves the feature map; ``none`` keeps its size.
        final_norm: Whether a BN follows the last block.
        final_relu: Whether an activation follows the last block (after the BN, if there is one).
        final_order: Whether the last BN comes before that activation or behind it.
        head_pool: How the last feature map becomes a vector: ``max_avg`` and ``avg_max`` concatenate both poolings in
            that order, ``avg_max_mean`` is the mean of both.
        feature_norm: Whether that vector is divided by its Euclidean norm (``l2``).
        head_activation: Activation after the last linear layer.
        hidden_activation: Activation between linear layers.
        trunk: Layers between the pooling and the heads, shared by all heads.
        map_side: Side in px that the last feature map must have where it is flattened; None where it is pooled.
        input_repeats: How often the input's channels are repeated before the stem reads them.
        input_norm: Whether the network itself normalizes its input by a mean and std stored in the checkpoint.
        decoder: What makes a map of classes of the last block's maps; None where they are pooled.
        sources: (fact, origin) for each fact that the tensors' shapes do not decide.
    """

    in_channels: int
    stem: tuple[StemConv, ...]
    blocks: tuple[DenseBlock, ...]
    transitions: tuple[int, ...]
    heads: tuple[Head, ...]
    stem_pool: StemPool = "none"
    eps: float = 1e-5
    hidden_eps: float | None = None
    concat: Literal["append", "prepend"] = "append"
    activation: Activation = "relu"
    outer_activation: Activation = "relu"
    stem_activation: Activation | None = None
    slope: float = 0.01
    stem_slope: float | None = None
    outer_slope: float | None = None
    hidden_slope: float | None = None
    dense_order: Order = "norm_first"
    transition_order: Order = "norm_first"
    transition_norm: bool = True
    transition_relu: bool = True
    transition_kernel: int = 1
    transition_bias: bool = False
    transition_groups: int = 1
    transition_pool: TransitionPool = "avg"
    final_norm: bool = True
    final_relu: bool = True
    final_order: Order = "norm_first"
    head_pool: HeadPool = "avg"
    feature_norm: FeatureNorm = "none"
    head_activation: HeadActivation = "none"
    hidden_activation: Activation = "relu"
    trunk: tuple[HeadLayer, ...] = ()
    map_side: int | None = None
    input_repeats: int = 1
    input_norm: bool = False
    decoder: Decoder | None = None
    sources: tuple[tuple[str, str], ...] = ()

    def active(self, part: Literal["dense", "outer", "stem", "hidden"]) -> tuple[Activation, float]:
        """Return the activation of a part of the network and the slope that it has where it is leaky."""
        outer = self.outer_activation, self.outer_slope or self.slope
        return {
            "dense": (self.activation, self.slope),
            "outer": outer,
            "stem": (self.stem_activation or outer[0], self.stem_slope or outer[1]),
            "hidden": (self.hidden_activation, self.hidden_slope or self.slope),
        }[part]

    @property
    def ndim(self) -> int:
        """Number of spatial axes of the input: 1, 2 or 3."""
        return len(self.stem[0].kernel)

    @property
    def stem_channels(self) -> int:
        """Number of channels that the first dense block reads."""
        return self.stem[-1].channels

    @property
    def classes(self) -> int:
        """Number of outputs of the first head; the number of features where there is no head."""
        return self.heads[0].classes if self.heads else self.width

    @property
    def width(self) -> int:
        """Number of channels of the last feature map."""
        widths = [self.stem_channels]
        for index, block in enumerate(self.blocks):
            widths.append(widths[-1] + block.layers * block.growth)
            widths += self.transitions[index : index + 1]
        return widths[-1]

    @property
    def skips(self) -> tuple[int, ...]:
        """Channels of the maps that the encoder hands to a decoder, from the smallest up."""
        width, ends = self.stem_channels, list[int]()
        for block, out in zip(self.blocks, self.transitions, strict=False):
            ends.append(width + block.layers * block.growth)
            width = out
        stem = [] if self.decoder is None or self.decoder.dense else [self.stem_channels]
        return tuple(reversed([*stem, *ends]))

    @property
    def depth(self) -> int:
        """Number of layers with weights as the papers count them: 121 for DenseNet-121; a deep stem counts as one.

        FC-DenseNet103 has 103 with those of its way up; another decoder is not counted, the classifier it replaces is.
        """
        levels = self.decoder.levels if self.decoder is not None else ()
        blocks = [*self.blocks, *(level.block for level in levels if level.block is not None)]
        dense = sum(block.layers * (1 if block.bottleneck is None else 2) for block in blocks)
        chains = [self.trunk, *(head.layers for head in self.heads[:1])]
        linear = sum(step.kind == "linear" for chain in chains for step in chain)
        return 1 + dense + len(self.transitions) + len(blocks) - len(self.blocks) + linear

    @property
    def compressed(self) -> bool:
        """Whether a transition has fewer output than input channels (the C of DenseNet-BC)."""
        width, fewer = self.stem_channels, False
        for block, out in zip(self.blocks, self.transitions, strict=False):
            fewer |= out < width + block.layers * block.growth
            width = out
        return fewer

    @property
    def title(self) -> str:
        """Name as the paper would write it, e.g. ``DenseNet-BC-40 (k = 12)`` or ``FC-DenseNet-103 (k = 16)``."""
        letters = "B" * any(block.bottleneck is not None for block in self.blocks) + "C" * self.compressed
        family = f"DenseNet-{letters}" if letters else "DenseNet"
        growths = dict.fromkeys(str(block.growth) for block in self.blocks)
        axes = "" if self.ndim == 2 else f", {self.ndim}-D"
        if self.decoder is not None:
            around = "FPN" if self.decoder.pyramid is not None else "U-Net"
            family = "FC-DenseNet" if self.decoder.dense else f"{around} on {family}"
        return f"{family}-{self.depth} (k = {', '.join(growths)}{axes})"
