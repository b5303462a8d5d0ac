"""Named tensors → DenseNetSpec and canonical names. Reads torchvision's naming, old and new, under any prefix.

Every tensor is used exactly once, or the file is refused with the names that are left over.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deploy_kit.checkpoint.container import Contents, Facts
from deploy_kit.errors import CheckpointError
from deploy_kit.records import DenseBlock, DenseNetSpec

# torchvision before 0.3 wrote `norm.1`; its download files still do.
_LEGACY = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.(\d+)\.")
_LAYER = re.compile(r"features\.denseblock(\d+)\.denselayer(\d+)\.conv1\.weight")
_HARMLESS = re.compile(r"(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params)$")
_MAX_LISTED = 6


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A spec, its tensors under canonical names as float32, and what was done to them."""

    spec: DenseNetSpec
    tensors: dict[str, Tensor]
    remarks: tuple[str, ...]


def parse(contents: Contents, where: str) -> Parsed:
    """Find the architecture in the tensors.

    Raises:
        CheckpointError: No DenseNet, an incomplete one, or tensors left over.
    """
    tensors, remarks = _canonical(contents.tensors, where)
    blocks = _blocks(tensors, where)
    stem, head = _weight(tensors, "features.conv0.weight", 4, where), _weight(tensors, "classifier.weight", 2, where)
    facts, sources = _facts(stem.shape[2], contents.facts)
    spec = DenseNetSpec(
        in_channels=stem.shape[1],
        classes=head.shape[0],
        stem_channels=stem.shape[0],
        stem_kernel=stem.shape[2],
        stem_norm="features.norm0.weight" in tensors,
        blocks=blocks,
        transitions=tuple(
            _weight(tensors, f"features.transition{i + 1}.conv.weight", 4, where).shape[0]
            for i in range(len(blocks) - 1)
        ),
        sources=sources,
        **facts,
    )
    return Parsed(spec=spec, tensors=_complete(tensors, spec, where), remarks=remarks)


def _canonical(tensors: Mapping[str, Tensor], where: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Strip the common prefix, rename old keys, widen half precision."""
    stem = next((name for name in tensors if name.endswith("features.conv0.weight")), None)
    if stem is None:
        sample = ", ".join(list(tensors)[:3])
        raise CheckpointError(
            f"{where}: expected a DenseNet with torchvision's names ('features.conv0.weight'), found {sample}, …",
            hint="rename the tensors as torchvision's densenet does, or save them from such a model",
        )
    prefix = stem.removesuffix("features.conv0.weight")
    remarks = [f"prefix '{prefix}' stripped"] if prefix else []
    result, outside, renamed, widened = dict[str, Tensor](), [], 0, 0
    for name, tensor in tensors.items():
        if _HARMLESS.search(name):
            continue
        if not name.startswith(prefix):
            outside.append(name)
            continue
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_meta:
            what = f"{tensor.dtype} ({tensor.layout}, {tensor.device.type})".replace("torch.", "")
            raise CheckpointError(f"{where}: {name}: expected a dense floating-point tensor, found {what}")
        short, count = _LEGACY.subn(r"\1\2.", name.removeprefix(prefix))
        renamed += count
        widened += tensor.dtype in (torch.float16, torch.bfloat16)
        result[short] = tensor.float()
    if outside:
        raise CheckpointError(f"{where}: tensors outside the network: {_listed(outside)}")
    if renamed:
        remarks.append(f"{renamed} old names (norm.1) read as new ones (norm1)")
    if widened:
        remarks.append(f"{widened} tensors widened from half precision to float32")
    return result, tuple(remarks)


def _blocks(tensors: Mapping[str, Tensor], where: str) -> tuple[DenseBlock, ...]:
    """Read each block's layers, growth and bottleneck from the shapes."""
    layers: dict[int, set[int]] = {}
    for name in tensors:
        if match := _LAYER.fullmatch(name):
            layers.setdefault(int(match[1]), set()).add(int(match[2]))
    if sorted(layers) != list(range(1, len(layers) + 1)) or not layers:
        raise CheckpointError(f"{where}: expected dense blocks 1, 2, …, found {sorted(layers) or 'none'}")
    blocks = []
    for block, found in sorted(layers.items()):
        missing = set(range(1, max(found) + 1)) - found
        if missing:
            raise CheckpointError(f"{where}: block {block} lacks denselayer{min(missing)} of {max(found)}")
        first = f"features.denseblock{block}.denselayer1"
        narrow, wide = f"{first}.conv1.weight", f"{first}.conv2.weight"
        bottleneck = _weight(tensors, narrow, 4, where).shape[0] if wide in tensors else None
        growth = _weight(tensors, narrow if bottleneck is None else wide, 4, where).shape[0]
        blocks.append(DenseBlock(layers=len(found), growth=growth, bottleneck=bottleneck))
    return tuple(blocks)


def _facts(kernel: int, stated: Facts) -> tuple[dict[str, Any], tuple[tuple[str, str], ...]]:
    """Decide what shapes cannot say: the file's own word, else torchvision's convention."""
    conventions: dict[str, tuple[Any, str]] = {
        "stem_stride": (2 if kernel == 7 else 1, "convention: 2 for a 7×7 stem, 1 for a smaller one"),
        "stem_pool": (kernel == 7, "convention: a 7×7 stem is followed by a pool"),
        "eps": (1e-5, "convention: torch's default"),
    }
    values, sources = {}, []
    for name, (default, convention) in conventions.items():
        said = getattr(stated, name)
        values[name] = default if said is None else said
        sources.append((name, convention if said is None else "stated in the file"))
    return values, tuple(sources)


def _complete(tensors: dict[str, Tensor], spec: DenseNetSpec, where: str) -> dict[str, Tensor]:
    """Hold the tensors against what the spec needs, name by name and shape by shape."""
    from deploy_kit.checkpoint.model import DenseNet

    with torch.device("meta"):
        wanted = DenseNet(spec).state_dict()
    needed = {name: tensor for name, tensor in wanted.items() if not _HARMLESS.search(name)}
    if missing := sorted(needed.keys() - tensors.keys()):
        raise CheckpointError(f"{where}: {spec.title} needs tensors that are missing: {_listed(missing)}")
    if left := sorted(tensors.keys() - needed.keys()):
        raise CheckpointError(f"{where}: tensors that {spec.title} has no place for: {_listed(left)}")
    for name, tensor in needed.items():
        if tensors[name].shape != tensor.shape:
            expected, found = list(tensor.shape), list(tensors[name].shape)
            raise CheckpointError(f"{where}: {name}: expected shape {expected}, found {found}")
        if not torch.isfinite(tensors[name]).all():
            raise CheckpointError(f"{where}: {name} holds NaN or infinity")
    counters = {name: torch.zeros((), dtype=torch.int64) for name in wanted if name.endswith("num_batches_tracked")}
    return tensors | counters


def _weight(tensors: Mapping[str, Tensor], name: str, rank: int, where: str) -> Tensor:
    if name not in tensors:
        raise CheckpointError(f"{where}: '{name}' is missing")
    tensor = tensors[name]
    if tensor.dim() != rank:
        raise CheckpointError(f"{where}: {name}: expected {rank} axes, found shape {list(tensor.shape)}")
    return tensor


def _listed(names: list[str]) -> str:
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
