"""Tests of `lookalikes`: networks of timm, torchvision, Caffe and Keras by the names of their tensors."""

import pytest

from deploy_kit.checkpoint.architecture.lookalikes import why_no_densenet


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("layer1.0.conv1.weight", "blocks under ResNet's names"),
        ("layer3.0.downsample.0.weight", "looks like ResNet"),
        ("stages.0.blocks.0.mlp.fc1.weight", "as in ConvNeXt or MetaFormer"),
        ("stage2.0.fuse_layers.0.1.0.weight", "looks like HRNet"),
        ("level3.tree1.conv1.weight", "looks like DLA"),
        ("stages.0.conv_transition_b.conv.weight", "looks like CSPNet"),
        ("blocks.0.0.conv_exp.weight", "blocks that widen their input, as in EfficientNet"),  # mobilenet_edgetpu
        ("blocks.0.0.conv_dw.weight", "depthwise convolutions, as in MobileNet"),
        ("stages.0.0.conv_kxk.0.conv.weight", "as in RepVGG"),
        ("Mixed_5b.branch1x1.conv.weight", "looks like Inception"),
        ("features.6.branch0.conv.weight", "as in Inception or ShuffleNetV2"),
        ("stage2.0.branch1.0.weight", "as in Inception or ShuffleNetV2"),
        ("res2a_branch2a.weight", "looks like ResNet"),
        ("layers.0.blocks.1.attn_mask", "attention is not supported"),
        ("features.denseblock_1.denselayer_1.conv_1._mask", "CondenseNet's learned groups"),
        ("conv3_1.c1x1_a.conv.weight", "looks like DPN"),
        ("features.denseblock1.denselayer1.branch1a.conv.weight", "two-way dense layers (PeleeNet)"),
        ("dense_stages.0.dense_blocks.0.layers.0.conv.weight", "RDNet is not supported"),
        ("blocks.0.attn.qkv.weight", "attention is not supported"),
        ("decoder.blocks.0.conv1.0.weight", "a decoder: of segmentation networks, FC-DenseNet and"),
        ("decoder.blocks.x_0_0.conv1.0.weight", "segmentation_models_pytorch, UnetPlusPlus"),
        ("decoder.blocks.0.hl_conv.0.0.weight", "segmentation_models_pytorch, MAnet"),
        ("decoder.blocks.0.block.0.0.weight", "segmentation_models_pytorch, Linknet"),
        ("decoder.psp.blocks.0.pool.1.0.weight", "segmentation_models_pytorch, PSPNet"),
        ("decoder.fpn_lateral_blocks.0.conv_norm_relu.0.weight", "segmentation_models_pytorch, UPerNet"),
        ("decoder.mlp_stage.0.linear.weight", "segmentation_models_pytorch, Segformer"),
        ("decoder.blocks.0.attention1.attention.cSE.1.weight", "Unet with scse attention"),
        ("features.denseblock1.denselayer1.conv1.weight", ""),
    ],
)
def test_network_is_called_by_what_its_names_give_away(name: str, why: str) -> None:
    others = ["layer1.0.conv1.weight"] if "HRNet" in why else []  # its first stage is that of a ResNet

    found = why_no_densenet(["features.conv0.weight", *others, name])

    assert why in found
    assert bool(found) == bool(why)
