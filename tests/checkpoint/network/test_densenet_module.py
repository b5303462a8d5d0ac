"""Tests of `densenet_module`: the sizes the literature gives, and the equations of the paper written out once more."""

import dataclasses
import itertools

import pytest
import torch
from tiny_densenet import TINY_SPEC, linear_head, tiny_model
from torch import Tensor
from torch.nn import functional

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, StemConv

TINY_PLAIN = dataclasses.replace(
    TINY_SPEC,
    blocks=(DenseBlock(layers=2, growth=4, bottleneck=None), DenseBlock(layers=2, growth=4, bottleneck=None)),
)

BARE_STEM = (StemConv(channels=8, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),)
WIDE_STEM = (StemConv(channels=8, kernel=(7, 7), stride=(2, 2)),)


def imagenet(layers: tuple[int, ...], growth: int = 32, stem: int = 64) -> DenseNetSpec:
    """Return the spec of torchvision's densenets: 7×7 stem, bottleneck 4 k, compression 0.5, 1,000 classes."""
    blocks = tuple(DenseBlock(layers=n, growth=growth, bottleneck=4 * growth) for n in layers)
    return DenseNetSpec(
        in_channels=3,
        stem=(StemConv(channels=stem, kernel=(7, 7), stride=(2, 2)),),
        stem_pool="max",
        blocks=blocks,
        transitions=widths(stem, blocks, 0.5),
        heads=linear_head(1000),
    )


def cifar(depth: int, growth: int, *, bottleneck: bool) -> DenseNetSpec:
    """Return the spec of the paper's CIFAR networks: three equal blocks; with a bottleneck also compression 0.5."""
    layers = (depth - 4) // (6 if bottleneck else 3)
    block = DenseBlock(layers=layers, growth=growth, bottleneck=4 * growth if bottleneck else None)
    stem = 2 * growth if bottleneck else 16
    return DenseNetSpec(
        in_channels=3,
        stem=(StemConv(channels=stem, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),),
        blocks=(block,) * 3,
        transitions=widths(stem, (block,) * 3, 0.5 if bottleneck else 1.0),
        heads=linear_head(10),
    )


def widths(stem: int, blocks: tuple[DenseBlock, ...], compression: float) -> tuple[int, ...]:
    """Return the channels after each transition: ⌊θ m⌋ of the m that its block ends with."""
    steps = itertools.accumulate(
        blocks[:-1], lambda width, block: int((width + block.layers * block.growth) * compression), initial=stem
    )
    return tuple(steps)[1:]


def n_parameters(spec: DenseNetSpec) -> int:
    with torch.device("meta"):
        return sum(tensor.numel() for tensor in DenseNet(spec).parameters())


def by_the_paper(spec: DenseNetSpec, weight: dict[str, Tensor], x: Tensor) -> Tensor:
    """Compute the logits by section 3 of the paper, in float64, with nothing but torch's functions."""

    def norm_relu(x: Tensor, name: str) -> Tensor:
        gamma, beta, mean, variance = (
            weight[f"{name}.{part}"][:, None, None] for part in ("weight", "bias", "running_mean", "running_var")
        )
        return ((x - mean) / (variance + spec.eps).sqrt() * gamma + beta).clamp(min=0)

    def conv(x: Tensor, name: str, stride: int = 1) -> Tensor:
        kernel = weight[f"{name}.weight"]
        return functional.conv2d(x, kernel, stride=stride, padding=kernel.shape[2] // 2)

    x = conv(x, "features.conv0", spec.stem[0].stride[0])
    if spec.stem[0].norm:
        x = norm_relu(x, "features.norm0")
    if spec.stem_pool == "max":
        x = functional.max_pool2d(x, 3, 2, 1)
    for b, block in enumerate(spec.blocks, 1):
        for n in range(1, block.layers + 1):
            layer = f"features.denseblock{b}.denselayer{n}"
            new = conv(norm_relu(x, f"{layer}.norm1"), f"{layer}.conv1")
            if block.bottleneck is not None:
                new = conv(norm_relu(new, f"{layer}.norm2"), f"{layer}.conv2")
            x = torch.cat([x, new], 1)
        if b <= len(spec.transitions):
            step = f"features.transition{b}"
            x = functional.avg_pool2d(conv(norm_relu(x, f"{step}.norm"), f"{step}.conv"), 2)
    features = norm_relu(x, "features.norm5").mean((2, 3))
    return features @ weight["classifier.weight"].T + weight["classifier.bias"]


@pytest.mark.parametrize(
    ("spec", "published"),
    [
        (imagenet((6, 12, 24, 16)), 7_978_856),
        (imagenet((6, 12, 32, 32)), 14_149_480),
        (imagenet((6, 12, 48, 32)), 20_013_928),
        (imagenet((6, 12, 36, 24), growth=48, stem=96), 28_681_000),
    ],
    ids=["121", "169", "201", "161"],
)
def test_imagenet_networks_have_torchvisions_number_of_parameters(spec: DenseNetSpec, published: int) -> None:
    assert n_parameters(spec) == published


def test_densenet_121_has_the_widths_of_the_paper() -> None:
    spec = imagenet((6, 12, 24, 16))

    assert spec.transitions == (128, 256, 512)
    assert spec.width == 1024


def test_densenet_bc_40_12_has_the_number_of_parameters_worked_out_by_hand() -> None:
    # A layer that reads w channels: BN 2w, conv1×1 48w, BN 96, conv3×3 48·12·9 = 5,184: together 50w + 5,280.
    stem = 3 * 24 * 9
    block1 = 50 * (24 + 36 + 48 + 60 + 72 + 84) + 6 * 5_280
    transition1 = 2 * 96 + 96 * 48
    block2 = 50 * (48 + 60 + 72 + 84 + 96 + 108) + 6 * 5_280
    transition2 = 2 * 120 + 120 * 60
    block3 = 50 * (60 + 72 + 84 + 96 + 108 + 120) + 6 * 5_280
    head = 2 * 132 + 132 * 10 + 10
    by_hand = stem + block1 + transition1 + block2 + transition2 + block3 + head

    assert by_hand == 176_122
    assert n_parameters(cifar(40, 12, bottleneck=True)) == by_hand


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "growth", "bottleneck", "millions"),
    [(40, 12, False, 1.0), (100, 12, False, 7.0), (100, 24, False, 27.2), (100, 12, True, 0.8), (250, 24, True, 15.3)],
)
def test_cifar_networks_have_the_millions_of_parameters_of_the_papers_table_2(
    depth: int, growth: int, bottleneck: bool, millions: float
) -> None:
    spec = cifar(depth, growth, bottleneck=bottleneck)

    assert round(n_parameters(spec) / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("spec", "depth", "title"),
    [
        (imagenet((6, 12, 24, 16)), 121, "DenseNet-BC-121 (k = 32)"),
        (imagenet((6, 12, 36, 24), growth=48, stem=96), 161, "DenseNet-BC-161 (k = 48)"),
        (cifar(40, 12, bottleneck=True), 40, "DenseNet-BC-40 (k = 12)"),
        (cifar(40, 12, bottleneck=False), 40, "DenseNet-40 (k = 12)"),
    ],
)
def test_depth_counts_layers_with_weights_as_the_paper_does(spec: DenseNetSpec, depth: int, title: str) -> None:
    assert (spec.depth, spec.title) == (depth, title)


def test_depth_is_the_number_of_convolutions_and_linear_layers() -> None:
    with torch.device("meta"):
        model = DenseNet(imagenet((6, 12, 24, 16)))

    weighted = [part for part in model.modules() if isinstance(part, (torch.nn.Conv2d, torch.nn.Linear))]

    assert len(weighted) == 121


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize(
    "spec",
    [
        TINY_SPEC,
        TINY_PLAIN,
        dataclasses.replace(TINY_SPEC, stem=BARE_STEM, stem_pool="none"),
        dataclasses.replace(TINY_SPEC, stem=WIDE_STEM, stem_pool="none", eps=0.1),
    ],
    ids=["tiny", "no bottleneck", "bare stem", "7x7 stem, large eps"],
)
def test_logits_are_those_of_the_papers_equations(spec: DenseNetSpec, size: int) -> None:
    model = tiny_model(spec).double()
    x = torch.randn(2, 1, size, size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    logits = model(x)

    torch.testing.assert_close(logits, by_the_paper(spec, model.state_dict(), x), rtol=1e-9, atol=1e-9)


def test_papers_equations_notice_a_weight_that_is_off_by_a_thousandth() -> None:
    model = tiny_model().double()
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weight["features.denseblock1.denselayer1.conv1.weight"][0, 0] *= 1.001

    difference = (model(x) - by_the_paper(TINY_SPEC, weight, x)).abs().max()

    assert difference > 1e-9


def test_parameters_are_named_as_torchvision_names_them() -> None:
    names = DenseNet(TINY_SPEC).state_dict().keys()

    assert names >= {
        "features.conv0.weight",
        "features.norm0.running_mean",
        "features.denseblock1.denselayer1.norm1.weight",
        "features.denseblock1.denselayer1.conv1.weight",
        "features.denseblock1.denselayer2.norm2.running_var",
        "features.denseblock2.denselayer2.conv2.weight",
        "features.transition1.norm.bias",
        "features.transition1.conv.weight",
        "features.norm5.num_batches_tracked",
        "classifier.bias",
    }


def test_image_has_the_same_logits_alone_and_in_a_batch() -> None:
    model = tiny_model().double()
    x = torch.randn(3, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    together = model(x)

    torch.testing.assert_close(together, torch.cat([model(image[None]) for image in x]))
