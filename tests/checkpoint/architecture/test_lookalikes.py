"""Tests of `lookalikes`: networks of timm and torchvision by the names of their tensors."""

import pytest

from deploy_kit.checkpoint.architecture.lookalikes import why_no_densenet


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("layer1.0.conv1.weight", "looks like ResNet"),
        ("layer3.0.downsample.0.weight", "looks like ResNet"),
        ("stages.0.blocks.0.mlp.fc1.weight", "looks like ConvNeXt or MetaFormer"),
        ("stage2.0.fuse_layers.0.1.0.weight", "looks like HRNet"),
        ("level3.tree1.conv1.weight", "looks like DLA"),
        ("stages.0.conv_exp.conv.weight", "looks like CSPNet"),
        ("blocks.0.0.conv_dw.weight", "looks like MobileNet"),
        ("stages.0.0.conv_kxk.0.conv.weight", "looks like RepVGG"),
        ("features.6.branch0.conv.weight", "looks like Inception"),
        ("conv3_1.c1x1_a.conv.weight", "looks like DPN"),
        ("features.denseblock1.denselayer1.branch1a.conv.weight", "two-way dense layers (PeleeNet)"),
        ("dense_stages.0.dense_blocks.0.layers.0.conv.weight", "RDNet is not supported"),
        ("blocks.0.attn.qkv.weight", "attention is not supported"),
        ("decoder.blocks.0.conv1.0.weight", "segmentation networks are not supported"),
        ("features.denseblock1.denselayer1.conv1.weight", ""),
    ],
)
def test_network_is_called_by_what_its_names_give_away(name: str, why: str) -> None:
    others = ["layer1.0.conv1.weight"] if "HRNet" in why else []  # its first stage is that of a ResNet

    found = why_no_densenet(["features.conv0.weight", *others, name])

    assert why in found
    assert bool(found) == bool(why)
