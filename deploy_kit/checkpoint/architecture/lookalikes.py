"""Networks that look like a DenseNet and are none: the names that give them away, and why they are refused.

Asked only where a file is refused anyway: a name alone refuses nothing.
"""

import re
from collections.abc import Iterable

# The special before the general: a quantized or masked network also has the names of the network that it was.
_REASONS = (
    (
        r"fake_quant|activation_post_process|_observer\b|_amax$",
        "quantization-aware training (QAT): the float weights alone are another model than the one that was trained",
    ),
    (r"(^|\.)(zero_point|_packed_params)\b", "an already quantized model"),
    (r"_mask$|\._count$|\._stage$|\.index$", "CondenseNet's learned groups are not supported"),
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
    (r"fuse_layers\.|branches\.", "not a DenseNet: parallel branches (looks like HRNet)"),
    (r"layer\d+\.\d+\.downsample", "not a DenseNet: downsample / no concatenation growth (looks like ResNet)"),
    (r"layer\d+\.\d+\.conv\d", "not a DenseNet: no concatenation growth (looks like ResNet)"),
    (r"mlp\w*\.(fc|conv|0)|pwconv|token_mixer", "not a DenseNet: blocks of an MLP (looks like ConvNeXt or MetaFormer)"),
    (r"tree\d\.", "not a DenseNet: trees of residual blocks (looks like DLA)"),
    (r"conv_(transition|exp)\b", "not a DenseNet: cross stage partial blocks (looks like CSPNet)"),
    (r"conv_(dw|pwl?|depthwise)\b|depthwise", "not a DenseNet: depthwise convolutions (looks like MobileNet)"),
    (r"inst_?norm|(^|\.)in\d*\.", "instance norms (IBN-DenseNet) are not supported"),
    (r"c1x1_[abc]|c1x1_w|c3x3_b", "not a DenseNet: dual paths (looks like DPN)"),
    (r"branch\d[a-z]\b", "two-way dense layers (PeleeNet) are not supported"),
    (r"Mixed_\d|branch\d|branch_pool|inception", "not a DenseNet: parallel branches (looks like Inception)"),
    (r"conv_kxk", "not a DenseNet: branches beside each convolution (looks like RepVGG)"),
    (r"downsample|shortcut", "not a DenseNet: downsample / no concatenation growth"),
    (r"decoder|up_?conv|upsample|deconv", "a decoder: segmentation networks are not supported"),
    (r"prelu|relu\.weight|act\d*\.weight", "learned activations (PReLU) are not supported"),
)


def why_no_densenet(names: Iterable[str]) -> str:
    """Return why a network with tensors of such names is refused; empty where nothing is known."""
    names = list(names)
    for pattern, why in _REASONS:
        if any(re.search(pattern, name, re.IGNORECASE) for name in names):
            return why
    return ""
