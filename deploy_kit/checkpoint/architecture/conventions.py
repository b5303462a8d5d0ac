"""Families of implementations, known by their key names: one row each, read from the implementation's source code.

Names decide only what shapes cannot; a row that BN statistics contradict is refused.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deploy_kit.checkpoint.facts import ArchitectureFacts

# Huang et al., CVPR 2017, section 3, and torch's default epsilon.
_PAPER = ArchitectureFacts(
    concat="append",
    transition_relu=True,
    transition_pool="avg",
    final_relu=True,
    activation="relu",
    outer_activation="relu",
    dense_order="norm_first",
    transition_order="norm_first",
    final_order="norm_first",
    head_pool="avg",
    feature_norm="none",
    eps=1e-5,
)


def _like_the_paper(**other: object) -> ArchitectureFacts:
    """Return the paper's facts with some changed."""
    known = dict(_PAPER.stated()) | other
    return ArchitectureFacts(**known)


# Jégou et al., CVPR Workshops 2017: maximum pools, enlarged maps first, a center crop that keeps the first pixels.
_FC_DENSENET = _like_the_paper(transition_pool="max", final_relu=False, skip_order="up_first", up_crop="start")
# The paper's stems for ImageNet and for CIFAR.
_LARGE = ArchitectureFacts(stem_stride=2, stem_pool="max")
_BARE = ArchitectureFacts(stem_stride=1, stem_pool="none")


@dataclass(frozen=True, kw_only=True)
class Family:
    """An implementation.

    Attributes:
        name: Its usual name.
        keys: Patterns that must each match a tensor's name.
        without: Patterns that no tensor's name may match.
        facts: What its source code does.
        wide_stem: What its source code does with a stem kernel of 7: stride 2, max pool.
        narrow_stem: What its source code does with a smaller one; None where it has none.
        ask: Facts in which variants with these very names differ, so that they are never guessed.
        outside: Whether its own head stands outside the module of the dense layers.
        bare: Whether it has no BN in transitions and behind the last block.
    """

    name: str
    keys: tuple[str, ...]
    without: tuple[str, ...] = ()
    facts: ArchitectureFacts = _PAPER
    wide_stem: ArchitectureFacts | None = _LARGE
    narrow_stem: ArchitectureFacts | None = None
    ask: tuple[str, ...] = ()
    outside: bool = False
    bare: bool = False


# In order: the first row that matches counts. Rows that share names go from the special to the general: fastai before
# torchvision, whose names it has; bamos (a BN `bn1` at the root) before bearpaw; the tutorial's variant before the
# tutorial. kuangliu and bearpaw differ in the name of the transition's BN, and put new features on opposite sides.
FAMILIES = (
    Family(
        name="fastai",
        keys=(r"^0\.0\.denseblock\d+\.denselayer\d+\.", r"^1\.\d+\.weight$"),
        facts=_like_the_paper(
            final_relu=False, head_pool="max_avg", hidden_activation="relu", hidden_order="activation_first"
        ),
        outside=True,
    ),
    Family(
        name="MONAI",
        keys=(r"denseblock\d+\.denselayer\d+\.layers\.norm1\.", r"class_layers\."),
    ),
    Family(
        name="segmentation_models_pytorch",
        keys=(
            r"(^|\.)encoder\.features\.denseblock\d+\.denselayer\d+\.norm1\.",
            r"(^|\.)decoder\.",
            r"(^|\.)segmentation_head\.0\.",
        ),
        facts=_like_the_paper(final_relu=False, skip_order="up_first"),
        # Arguments of its networks: the interpolation since 2025 (before that, nearest alone), an FPN's scale always.
        ask=("upsampling", "map_scale"),
    ),
    Family(
        name="torchvision",
        keys=(r"denseblock\d+\.denselayer\d+\.norm\.?1\.",),
    ),
    Family(
        name="CondenseNet's DenseNet",
        keys=(r"denseblock_\d+\.denselayer_\d+\.conv_1\.norm\.",),
        narrow_stem=_BARE,
    ),
    Family(
        name="pytorch_tiramisu",
        keys=(r"(^|\.)denseBlocksDown\.\d+\.layers\.\d+\.norm\.", r"(^|\.)transUpBlocks\.\d+\.convTrans\."),
        facts=_FC_DENSENET,
        narrow_stem=_BARE,
    ),
    Family(
        name="pytorch-densenet-tiramisu",
        keys=(r"(^|\.)down_dense\.block_\d+\.layer_\d+\.norm\.", r"(^|\.)up_trans\.trans_\d+\.upconv\."),
        facts=_FC_DENSENET,
        narrow_stem=_BARE,
    ),
    Family(
        name="BIGBALLON CIFAR-ZOO",
        keys=(r"(^|\.)dense_?\d+\.\d+\.bn_1\.",),
        facts=_like_the_paper(concat="prepend"),
        narrow_stem=_BARE,
    ),
    Family(
        name="kuangliu pytorch-cifar",
        keys=(r"(^|\.)dense\d+\.\d+\.bn1\.", r"(^|\.)trans\d+\.bn\."),
        facts=_like_the_paper(concat="prepend"),
        narrow_stem=_BARE,
    ),
    Family(
        name="bamos densenet.pytorch",
        keys=(r"(^|\.)dense\d+\.\d+\.bn1\.", r"(^|\.)trans\d+\.bn1\.", r"^(module\.)?bn1\."),
        facts=_like_the_paper(head_activation="log_softmax"),
        narrow_stem=_BARE,
    ),
    Family(
        name="bearpaw pytorch-classification",
        keys=(r"(^|\.)dense\d+\.\d+\.bn1\.", r"(^|\.)trans\d+\.bn1\."),
        narrow_stem=_BARE,
    ),
    Family(
        name="andreasveit",
        keys=(r"(^|\.)block\d+\.layer\.\d+\.bn1\.",),
        narrow_stem=_BARE,
    ),
    Family(
        name="weiaicunzai pytorch-cifar100",
        keys=(r"bottle_neck_layer_\d+\.bottle_neck\.0\.", r"transition_layer_\d+\.down_sample\.1\.weight"),
        facts=_like_the_paper(transition_relu=False),
        narrow_stem=_BARE,
    ),
    Family(
        name="dense_block_0 tutorial with a second linear layer",
        keys=(r"dense_block_\d+\.bottle_neck_layer_\d+\.residual\.", r"(^|\.)linear_\w+\.weight"),
        ask=("activation", "hidden_activation"),
    ),
    Family(
        name="dense_block_0 tutorial",
        keys=(r"dense_block_\d+\.bottle_neck_layer_\d+\.residual\.",),
    ),
    Family(
        name="Dive into Deep Learning",
        keys=(r"(^|\.)\d+\.net\.\d+\.\d+\.",),
        ask=("head_pool",),  # editions of the book end with a global maximum or a global average
    ),
    Family(
        name="bottleneck_layer tutorial",
        keys=(r"bottleneck_layer_\d+\.", r"downsample"),
    ),
    Family(
        name="hysts",
        keys=(r"(^|\.)stage\d+\.block\d+\.bn\d?\.", r"(^|\.)stage\d+\.transition\."),
        narrow_stem=_BARE,
    ),
    Family(
        name="pytorchcv / imgclsmob",
        keys=(r"stage\d+\.unit\d+\.conv\d?\.bn\.", r"stage\d+\.trans\d+\."),
        narrow_stem=_BARE,
    ),
    Family(
        name="mmpretrain",
        keys=(r"stages\.\d+\.block\.\d+\.norm1\.", r"transitions\.\d+\."),
        outside=True,
    ),
    Family(
        name="PaddleClas",
        keys=(r"(^|\.)db_conv_\d+\.conv\d+_\d+\.", r"(^|\.)tr_conv\d+_blk\."),
    ),
    Family(
        name="keras-applications",
        keys=(r"conv\d_block\d+_\d_bn\.", r"pool\d_(bn|conv)\."),
        facts=_like_the_paper(eps=1.001e-5),
    ),
    Family(
        name="tf.keras DenseUnit tutorial",
        keys=(r"dense_unit(_\d+)?\.bn\.", r"transition_layer"),
        bare=True,
        facts=ArchitectureFacts(
            concat="append", activation="relu", eps=1e-3, transition_pool="max", transition_relu=False,
            final_relu=False, hidden_activation="relu",
        ),
        narrow_stem=_BARE,
    ),
)  # fmt: skip


def family_of(names: Iterable[str]) -> Family | None:
    """Return the family that tensors' names belong to: the first row that matches; None where none does."""
    names = list(names)
    for family in FAMILIES:
        if all(any(re.search(key, name) for name in names) for key in family.keys) and not any(
            re.search(key, name) for key in family.without for name in names
        ):
            return family
    return None
