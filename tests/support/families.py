"""Small DenseNets and the names that implementations give their tensors; names drawn at random too.

A network is drawn or given as a spec; `named` writes its tensors under one family's names, so that what a reader finds
in them can be compared with the spec.
"""

import dataclasses
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv

Tensors = dict[str, Tensor]


def linear(classes: int, *, bias: bool = True) -> tuple[Head, ...]:
    """Return a head of one linear layer."""
    return (Head(name="logits", layers=(HeadLayer(kind="linear", channels=classes, bias=bias),)),)


def small(**changes: object) -> DenseNetSpec:
    """Return a small DenseNet-BC with the paper's stem for large images; `changes` replace fields."""
    spec = DenseNetSpec(
        in_channels=3,
        stem=(StemConv(channels=10, kernel=(7, 7), stride=(2, 2)),),
        stem_pool="max",
        blocks=tuple(DenseBlock(layers=n, growth=4, bottleneck=12) for n in (2, 3, 2)),
        transitions=(9, 10),
        heads=linear(5),
    )
    return dataclasses.replace(spec, **changes)


def cifar(**changes: object) -> DenseNetSpec:
    """Return a small DenseNet-BC with the paper's stem for small images; `changes` replace fields."""
    stem = (StemConv(channels=10, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),)
    return dataclasses.replace(small(stem=stem, stem_pool="none"), **changes)


def drawn(seed: int) -> DenseNetSpec:
    """Draw a network: axes, channels, stem, blocks with their own k, biases, groups, transitions, head."""
    r = random.Random(seed)
    ndim = r.choice((1, 2, 2, 2, 3))
    bottleneck, biases, groups = r.random() < 0.7, (r.random() < 0.2, r.random() < 0.2), r.choice((1, 1, 1, 2))
    if not bottleneck:
        biases, groups = (False, biases[1]), 1
    depth = r.choice((1, 1, 1, 3))
    widths = [r.randrange(5, 12) * 2 for _ in range(depth)]
    kernel = r.choice((3, 5, 7))
    normed = depth > 1 or r.random() < 0.5
    stem = tuple(
        StemConv(channels=width, kernel=(kernel if at == 0 else 3,) * ndim,
                 stride=(r.choice((1, 2)) if at == 0 else 1,) * ndim, bias=not normed and r.random() < 0.5, norm=normed,
                 relu=normed)
        for at, width in enumerate(widths)
    )  # fmt: skip
    width, blocks, transitions = widths[-1], [], []
    n_blocks = r.choice((2, 3, 4))
    for number in range(n_blocks):
        k = r.randrange(2, 6) * 2
        block = DenseBlock(
            layers=r.randrange(2, 5), growth=k, bottleneck=r.randrange(2, 4) * k if bottleneck else None,
            kernel=(3,) * ndim, biases=biases, groups=(groups if bottleneck else 1, groups),
        )  # fmt: skip
        blocks.append(block)
        width += block.layers * k
        if number < n_blocks - 1:
            width = r.choice((width, width // 2 // 2 * 2, width * 3 // 4 // 2 * 2))
            transitions.append(width)
    return DenseNetSpec(
        in_channels=r.choice((1, 2, 3, 4, 5)),
        stem=stem,
        blocks=tuple(blocks),
        transitions=tuple(transitions),
        heads=linear(r.randrange(2, 12), bias=r.random() < 0.8),
        stem_pool=r.choice(("none", "max", "avg", "blur")) if ndim > 1 else r.choice(("none", "max")),
        concat=r.choice(("append", "prepend")),
        activation=r.choice(("relu", "relu", "leaky_relu", "elu", "silu", "gelu")),
        transition_relu=r.random() < 0.8,
        transition_bias=r.random() < 0.2,
        transition_pool=r.choice(("avg", "max")),
        final_relu=r.random() < 0.8,
        eps=r.choice((1e-5, 1e-3)),
        head_pool=r.choice(("avg", "max")),
    )


def trained(spec: DenseNetSpec, *, seed: int = 0, side: int = 32, statistics: bool = True) -> DenseNet:
    """Build a network with lively BNs; their statistics are those of real activations, or random ones.

    Args:
        spec: The network.
        seed: Seed of weights and data.
        side: Side of the images in px.
        statistics: Whether BN statistics come from a forward pass.
    """
    torch.manual_seed(seed)
    model = DenseNet(spec)
    norms = [part for part in model.modules() if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0, 0.3)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
        torch.nn.init.normal_(norm.running_mean, 0, 0.3)
        norm.momentum = None
    if statistics:
        for norm in norms:
            norm.reset_running_stats()
        smooth = torch.nn.functional.interpolate
        modes = {1: "linear", 2: "bilinear", 3: "trilinear"}
        coarse = torch.randn(16, spec.in_channels, *[8] * spec.ndim)
        x = smooth(coarse, size=[side] * spec.ndim, mode=modes[spec.ndim]) + 0.3 * torch.randn(
            16, spec.in_channels, *[side] * spec.ndim
        )
        with torch.no_grad():
            model.train()(x)
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Names:
    """Module names of one family; {b} and {l} stand for the numbers of blocks and layers.

    Attributes:
        stem: Names of each stem convolution and its BN.
        layer: Names of norm1, conv1, norm2, conv2.
        transition: Names of norm and conv.
        final: Name of the last BN.
        head: Name of the linear layer.
        base: First numbers of blocks and layers.
    """

    stem: tuple[tuple[str, str], ...]
    layer: tuple[str, str, str, str]
    transition: tuple[str, str]
    final: str
    head: str
    base: tuple[int, int] = (1, 1)
    rename: Callable[[str], str] = field(default=lambda name: name)


TORCHVISION = Names(
    stem=tuple((f"features.conv{n}", f"features.norm{n}") for n in range(3)),
    layer=tuple(f"features.denseblock{{b}}.denselayer{{l}}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")),  # type: ignore[arg-type]
    transition=("features.transition{b}.norm", "features.transition{b}.conv"),
    final="features.norm5",
    head="classifier",
)
KUANGLIU = Names(
    stem=(("conv1", "-"),),
    layer=("dense{b}.{l}.bn1", "dense{b}.{l}.conv1", "dense{b}.{l}.bn2", "dense{b}.{l}.conv2"),
    transition=("trans{b}.bn", "trans{b}.conv"),
    final="bn",
    head="linear",
    base=(1, 0),
)
BEARPAW = dataclasses.replace(KUANGLIU, transition=("trans{b}.bn1", "trans{b}.conv1"), head="fc")
TUTORIAL = Names(
    stem=(("conv1.0", "conv1.1"),),
    layer=tuple(f"features.dense_block_{{b}}.bottle_neck_layer_{{l}}.residual.{n}" for n in (0, 2, 3, 5)),  # type: ignore[arg-type]
    transition=("features.transition_layer_{b}.down_sample.0", "features.transition_layer_{b}.down_sample.2"),
    final="features.bn",
    head="linear",
    base=(0, 0),
)
NO_RELU = dataclasses.replace(
    TUTORIAL,
    layer=tuple(f"features.dense_block_layer_{{b}}.bottle_neck_layer_{{l}}.bottle_neck.{n}" for n in (0, 2, 3, 5)),
    transition=("features.transition_layer_{b}.down_sample.0", "features.transition_layer_{b}.down_sample.1"),
)
FLAT_KERAS = Names(
    stem=(("conv1_conv", "conv1_bn"),),
    layer=("conv{b}_block{l}_0_bn", "conv{b}_block{l}_1_conv", "conv{b}_block{l}_1_bn", "conv{b}_block{l}_2_conv"),
    transition=("pool{b}_bn", "pool{b}_conv"),
    final="bn",
    head="predictions",
    base=(2, 1),
)
SPLIT_ORDER = Names(
    stem=(("backbone.stem.0", "backbone.stem.1"),),
    layer=tuple(f"backbone.stages.{{b}}.block.{{l}}.{part}" for part in ("norm1", "conv1", "norm2", "conv2")),  # type: ignore[arg-type]
    transition=("backbone.transitions.{b}.norm", "backbone.transitions.{b}.conv"),
    final="backbone.transitions.9.0",
    head="head.fc",
    base=(0, 0),
)
IN_STAGE = Names(
    stem=(("features.init_block.conv", "features.init_block.bn"),),
    layer=tuple(f"features.stage{{b}}.unit{{l}}.conv{part}" for part in ("1.bn", "1.conv", "2.bn", "2.conv")),  # type: ignore[arg-type]
    transition=("features.stage{b}.transition.bn", "features.stage{b}.transition.conv"),
    final="features.post_activ.bn",
    head="output",
)
FAMILIES: Mapping[str, Names] = {
    "torchvision": TORCHVISION, "bearpaw": BEARPAW, "tutorial": TUTORIAL, "flat keras": FLAT_KERAS,
    "split order": SPLIT_ORDER, "transition in the stage": IN_STAGE,
}  # fmt: skip


def random_names(seed: int, n_stem: int = 3) -> Names:
    """Draw names: words that mean nothing, numbers from 0 or 1, any nesting, but one word for one role."""
    r = random.Random(seed)

    def word() -> str:
        return "".join(r.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(r.randrange(2, 8)))

    prefix = "".join(f"{word()}." for _ in range(r.randrange(3)))
    block, layer, inner = word(), word(), "".join(f"{word()}." for _ in range(r.randrange(2)))
    mark = r.choice(("", "_", "."))
    home = f"{prefix}{block}{mark}{{b}}.{layer}{mark}{{l}}.{inner}"
    leaves = [word() for _ in range(4)]
    if r.random() < 0.3:
        leaves = ["0", "2", "3", "5"]
    between = f"{prefix}{word()}{mark}{{b}}"
    body = tuple((f"{prefix}{a}{n}", f"{prefix}{b}{n}") for n, (a, b) in enumerate([(word(), word())] * n_stem))
    return Names(
        stem=body,
        layer=tuple(home + leaf for leaf in leaves),  # type: ignore[arg-type]
        transition=(f"{between}.{word()}", f"{between}.{word()}"),
        final=prefix + word(),
        head=r.choice((prefix, "")) + word(),
        base=(r.choice((0, 1)), r.choice((0, 1))),
    )


def named(model: DenseNet, names: Names, *, shuffle: int | None = None, counters: bool = True) -> Tensors:
    """Return a model's tensors under a family's names, in random order where `shuffle` is a seed."""
    renamed = {}
    for name, tensor in model.state_dict().items():
        module, _, part = name.rpartition(".")
        if part != "num_batches_tracked" or counters:
            renamed[f"{_renamed(module, model.spec, names)}.{part}"] = tensor
    order = list(renamed)
    if shuffle is not None:
        random.Random(shuffle).shuffle(order)
    return {name: renamed[name] for name in order}


def _renamed(module: str, spec: DenseNetSpec, names: Names) -> str:
    parts = module.split(".")
    if parts[0] != "features":
        return names.head
    last = parts[-1]
    if parts[1].startswith("denseblock"):
        block, layer = (int("".join(filter(str.isdigit, part))) for part in parts[1:3])
        role = ("norm1", "conv1", "norm2", "conv2").index(last)
        return names.layer[role].format(b=block - 1 + names.base[0], l=layer - 1 + names.base[1])
    if parts[1].startswith("transition"):
        block = int(parts[1].removeprefix("transition"))
        return names.transition[last == "conv"].format(b=block - 1 + names.base[0])
    if parts[1] == "norm5":
        return names.final
    return names.stem[int(parts[1][-1])][parts[1].startswith("norm")]
