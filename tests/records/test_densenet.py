"""Tests of densenet.py: what follows from an architecture, against the paper's tables."""

import dataclasses

import pytest

from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv


def spec(layers, growth, *, stem=None, bottleneck=True, compression=0.5, classes=10):
    """Give a spec as the paper builds it: transitions keep `compression` of the channels."""
    stem = stem or 2 * growth
    channels, transitions = stem, []
    for n in layers[:-1]:
        channels = int((channels + n * growth) * compression)
        transitions.append(channels)
    return DenseNetSpec(
        in_channels=3,
        stem=(StemConv(channels=stem, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),),
        blocks=tuple(
            DenseBlock(layers=n, growth=growth, bottleneck=4 * growth if bottleneck else None) for n in layers
        ),
        transitions=tuple(transitions),
        heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=classes),)),),
    )


@pytest.mark.parametrize(
    ("layers", "growth", "stem", "depth", "width"),
    [
        ((6, 12, 24, 16), 32, 64, 121, 1024),
        ((6, 12, 32, 32), 32, 64, 169, 1664),
        ((6, 12, 48, 32), 32, 64, 201, 1920),
        ((6, 12, 36, 24), 48, 96, 161, 2208),
    ],
)
def test_depth_and_width_are_those_of_the_published_networks(layers, growth, stem, depth, width):
    network = spec(layers, growth, stem=stem)

    assert (network.depth, network.width) == (depth, width)


def test_depth_counts_one_layer_for_each_without_a_bottleneck():
    assert spec((12, 12, 12), 12, stem=16, bottleneck=False, compression=1).depth == 40


def test_width_of_a_single_block_starts_from_the_stem():
    assert spec((3,), 4, stem=8).width == 8 + 3 * 4


def test_title_is_the_papers_name_with_bottleneck_and_compression():
    assert spec((16, 16, 16), 12).title == "DenseNet-BC-100 (k = 12)"


def test_title_is_the_papers_name_without_bottleneck():
    assert spec((12, 12, 12), 12, stem=16, bottleneck=False, compression=1).title == "DenseNet-40 (k = 12)"


def test_title_names_no_compression_where_there_is_none():
    assert spec((16, 16, 16), 12, compression=1).title == "DenseNet-B-100 (k = 12)"


def test_title_names_compression_without_bottleneck():
    assert spec((12, 12, 12), 12, stem=16, bottleneck=False).title == "DenseNet-C-40 (k = 12)"


def test_title_lists_each_growth_once():
    blocks = tuple(DenseBlock(layers=2, growth=growth, bottleneck=16) for growth in (8, 16, 8))

    assert dataclasses.replace(spec((2, 2, 2), 8), blocks=blocks).title.endswith("(k = 8, 16)")
