"""Networks that look like a DenseNet and are none: the names that give them away, and why they are refused.

Asked only where a file is refused anyway: a name alone refuses nothing. A network is named where nothing but that
network is known to have such names; else what it computes is said, and who else does.
"""

import re
from collections.abc import Iterable

NO_DECODER = (
    "a decoder: of segmentation networks, FC-DenseNet and segmentation_models_pytorch's Unet and FPN are rebuilt"
)
_DECODER = r"decoder|up_?conv|upsample|deconv|segmentation_head"
# Decoders of segmentation_models_pytorch 0.5.0 that are not rebuilt.
_SMP = {
    "UnetPlusPlus": r"decoder\.blocks\.x_\d+_\d+\.",
    "MAnet": r"decoder\.blocks\.\d+\.hl_conv\.",
    "UPerNet": r"decoder\.fpn_lateral_blocks\.",
    "PSPNet": r"decoder\.psp\.",
    "Linknet": r"decoder\.blocks\.\d+\.block\.\d+\.\d+\.",
    "Segformer": r"decoder\.mlp_stage\.",
    "Unet with scse attention": r"decoder\..*attention\d\.attention\.[cs]SE\.",
}
# The special before the general: a quantized or masked network also has the names of the network that it was.
_REASONS = (
    *(
        (key, f"a decoder of segmentation_models_pytorch, {name}: its Unet and FPN are rebuilt")
        for name, key in _SMP.items()
    ),
    (
        r"fake_quant|activation_post_process|_observer\b|_amax$",
        "quantization-aware training (QAT): the float weights alone are another model than the one that was trained",
    ),
    (r"(^|\.)(zero_point|_packed_params)\b", "an already quantized model"),
    (r"\._(mask|count|stage)$|(^|\.)index$", "CondenseNet's learned groups are not supported"),
    (
        r"(^|\.)mask$",
        "X-DenseNet / masked convolutions are not supported: without its masks the answer is another",
    ),
    (r"dense_stages\.", "RDNet is not supported: layer norms and GELU in place of BN and ReLU"),
    (r"fc\d*_?[qkv]\b|attn|attention|qkv", "attention is not supported"),
    (
        r"(^|[._])se(layer|_layer|_module|_block)?_?\w?\d*\w?\.|excitation|(^|\.)(sse|cse)\.",
        "squeeze-and-excitation is not supported",
    ),
    (r"fuse_layers\.", "not a DenseNet: parallel branches (looks like HRNet)"),
    (
        r"layer\d+\.\d+\.downsample|(^|[./])res\d+\w*_branch\d",
        "not a DenseNet: downsample / no concatenation growth (looks like ResNet)",
    ),
    (r"layer\d+\.\d+\.conv\d", "not a DenseNet: no concatenation growth (blocks under ResNet's names)"),
    (r"mlp\w*\.(fc|conv|0)|pwconv|token_mixer", "not a DenseNet: blocks of an MLP, as in ConvNeXt or MetaFormer"),
    (r"tree\d\.", "not a DenseNet: trees of residual blocks (looks like DLA)"),
    (r"conv_transition(_b)?\.", "not a DenseNet: cross stage partial blocks (looks like CSPNet)"),
    (r"conv_(dw|depthwise)\b|depthwise", "not a DenseNet: depthwise convolutions, as in MobileNet"),
    (r"conv_(exp|pwl?)\b", "not a DenseNet: blocks that widen their input, as in EfficientNet"),
    (r"inst_?norm|(^|\.)in\d*\.", "instance norms, as in IBN-DenseNet, are not supported"),
    (r"c1x1_[abc]|c1x1_w|c3x3_b", "not a DenseNet: dual paths (looks like DPN)"),
    (r"(^|\.)branch\d[a-z]\b", "two-way dense layers (PeleeNet) are not supported"),
    (r"Mixed_\d|branch_pool|inception", "not a DenseNet: parallel branches (looks like Inception)"),
    (r"branch", "not a DenseNet: parallel branches, as in Inception or ShuffleNetV2"),
    (r"conv_kxk", "not a DenseNet: branches beside each convolution, as in RepVGG"),
    (r"downsample|shortcut", "not a DenseNet: downsample / no concatenation growth"),
    (_DECODER, NO_DECODER),
    (r"prelu|relu\.weight|act\d*\.weight", "learned activations (PReLU) are not supported"),
)


def has_decoder(names: Iterable[str]) -> bool:
    """Return whether tensors of such names belong to a decoder, whatever else they show."""
    return any(re.search(_DECODER, name, re.IGNORECASE) for name in names)


def why_no_densenet(names: Iterable[str]) -> str:
    """Return why a network with tensors of such names is refused; empty where nothing is known."""
    names = list(names)
    for pattern, why in _REASONS:
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return why
    return ""
