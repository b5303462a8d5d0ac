"""Named tensors → leaves: one BN, convolution or linear layer each, under its module path, in no order.

What training tools leave beside the weights is set aside here and remarked; what a leaf lacks is refused by name.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture.lookalikes import NO_DECODER, why_no_densenet

# Counters of BNs and of averaged models, profilers' counts (thop).
_COUNTERS = re.compile(r"(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params|__ops__|__params__)$")
# Weights and buffers of losses and metrics, where they are no layers.
_HARMLESS = re.compile(
    r"(^|\.)pos_weight$"
    r"|(^|\.)(criterion|criterions|loss|losses|loss_fn|loss_fun|loss_func|loss_function|metrics?)\d*\."
    r"|(^|\.)((train|val|valid|test|eval)_?)(auroc|auc|acc|accuracy|f1|loss|metrics?|map|ap|precision|recall)\w*\.",
    re.IGNORECASE,
)
# As torch.nn.utils names what it computes a weight from: pruning, weight norm and spectral norm, old form and new.
_PRUNED = (("weight_orig", "weight_mask"), ("bias_orig", "bias_mask"))
_WEIGHT_NORM = (
    ("weight_g", "weight_v"),
    ("parametrizations.weight.original0", "parametrizations.weight.original1"),
)
_SPECTRAL_NORM = (
    ("weight_orig", "weight_u", "weight_v"),
    ("parametrizations.weight.original", "parametrizations.weight.0._u", "parametrizations.weight.0._v"),
)
_STATISTICS = ("running_mean", "running_var")
_MADE_PLAIN = (
    "save the tensors where the model is at hand, behind what makes the weight plain: torch.nn.utils.prune.remove("
    "layer, 'weight'), remove_weight_norm(layer) or remove_spectral_norm(layer) of torch.nn.utils"
)
_MAX_LISTED = 6

Kind = Literal["norm", "conv", "linear", "up", "group"]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One layer with weights.

    Attributes:
        path: Path of its module, part by part, or its place in the file's graph; empty at the root.
        kind: What it is; ``up`` is a convolution that its bias shows to be transposed. One of as many input as output
            channels, or without a bias, looks as any other. ``group`` is a group norm, which its place alone shows.
        shape: Shape of its weight, (out, in, …); of a BN (channels,).
        parts: Part → the tensor's name in the file.
    """

    path: tuple[str, ...]
    kind: Kind
    shape: tuple[int, ...]
    parts: Mapping[str, str] = field(compare=False, hash=False)

    @property
    def name(self) -> str:
        """Its module's path in the file."""
        return next(iter(self.parts.values())).rpartition(".")[0]

    @property
    def out(self) -> int:
        """Output channels."""
        return self.shape[0]

    @property
    def read(self) -> int:
        """Input channels of its weight; those of one group where it is grouped."""
        return self.shape[1]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Sides of a convolution's kernel."""
        return self.shape[2:]

    @property
    def bias(self) -> bool:
        """Whether it has a bias."""
        return "bias" in self.parts


@dataclass(frozen=True, kw_only=True)
class Leaves:
    """The layers of a file.

    Attributes:
        layers: All layers with weights.
        others: Names of tensors that belong to none of them.
        tensors: Every kept tensor as float32, by its name in the file.
        remarks: What was set aside or folded.
    """

    layers: tuple[Leaf, ...]
    others: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    remarks: tuple[str, ...]


def gather(tensors: Mapping[str, Tensor], where: str, places: Mapping[str, tuple[str, ...]] | None = None) -> Leaves:
    """Group tensors into leaves.

    Args:
        tensors: Tensors by their names in the file.
        where: The file, for messages.
        places: Module → its place in the graph, in place of its path.

    Raises:
        CheckpointError: A tensor that is no dense floating-point one, a negative variance, or half a layer.
    """
    kept, remarks = _kept(tensors)
    kept, folded = _folded(kept, where)
    if computed := next((name for name in kept if ".parametrizations." in name), None):
        layer, _, part = computed.partition(".parametrizations.")
        part = part.split(".")[0]
        raise CheckpointError(
            f"{where}: '{layer}.{part}' is computed by a parametrization that is not known ('{computed}')",
            hint="save it where the model is at hand, behind torch.nn.utils.parametrize.remove_parametrizations("
            f"model.{layer}, '{part}')",
        )
    floats = {name: _as_float(name, tensor, where) for name, tensor in kept.items()}
    widened = sum(tensor.dtype in (torch.float16, torch.bfloat16) for tensor in kept.values())
    if widened:
        remarks.append(f"{widened} tensors widened from half precision to float32")
    modules: dict[tuple[str, ...], dict[str, str]] = {}
    for name in floats:
        module, _, part = name.rpartition(".")
        modules.setdefault(tuple(module.split(".")) if module else (), {})[part] = name
    layers: list[Leaf] = []
    others: list[str] = []
    for path, parts in modules.items():
        leaf = _leaf((places or {}).get(".".join(path), path), parts, floats, where)
        if leaf is not None:
            layers.append(leaf)
        others += [name for name in parts.values() if leaf is None or name not in leaf.parts.values()]
    return Leaves(layers=tuple(layers), others=tuple(others), tensors=floats, remarks=(*remarks, *folded))


def refuse_transposed(leaves: Leaves, where: str) -> None:
    """Refuse transposed convolutions that are no part of a network that is rebuilt."""
    turned = [name for leaf in leaves.layers if leaf.kind == "up" for name in leaf.parts.values()]
    if not turned:
        return
    why = why_no_densenet(leaves.tensors)
    if not why.startswith(("not a DenseNet", "attention", "a decoder")):
        why = NO_DECODER
    raise CheckpointError(
        f"{where}: {why} ('{turned[0].rpartition('.')[0]}' is a transposed convolution, as decoders have)",
        hint=f"if the decoder takes no part in the answer, leave it out: {_flags(turned, leaves.tensors)}",
    )


def verify_finite(leaves: Leaves, where: str) -> None:
    """Refuse NaN in a layer; in a tensor of none it computes nothing, and the tensor is asked about by its name."""
    for name in (name for leaf in leaves.layers for name in leaf.parts.values()):
        # One sum on one thread shows a NaN; ten times as fast as torch's own test, which also wakes every core.
        with np.errstate(all="ignore"):
            summed = np.isfinite(np.sum(leaves.tensors[name].numpy()))
        if not summed and not torch.isfinite(leaves.tensors[name]).all():
            raise CheckpointError(
                f"{where}: {name} holds NaN or infinity", hint="the training diverged: take an earlier checkpoint"
            )


def listed(names: Iterable[str]) -> str:
    """List a few names and count the rest."""
    names = list(names)
    rest = len(names) - _MAX_LISTED
    return ", ".join(names[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _kept(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Set aside counters, profilers' notes, losses and metrics; by a name alone no layer is: 'metric.0' may be one."""
    layers = {
        name.rpartition(".")[0]
        for name, tensor in tensors.items()
        if (name.endswith(".weight") and tensor.dim() > 1) or name.endswith(_STATISTICS)
    }
    aside = [name for name in tensors if _COUNTERS.search(name)]
    aside += [name for name in tensors if _HARMLESS.search(name) and name.rpartition(".")[0] not in layers]
    kept = {name: tensor for name, tensor in tensors.items() if name not in set(aside)}
    remarked = sorted({name for name in aside if not name.endswith("num_batches_tracked")})
    return kept, [f"left out, no part of the network: {listed(remarked)}"] if remarked else []


def _folded(tensors: dict[str, Tensor], where: str) -> tuple[dict[str, Tensor], list[str]]:
    """Replace what a weight is computed from by the weight: pruning masks, weight norms, spectral norms."""
    result, pruned, normed = dict(tensors), 0, 0
    spectral = _divide_spectral(tensors, result, where)
    for name in tensors:
        for kept, mask in _PRUNED:
            if name.endswith("." + kept) and (other := name.removesuffix(kept) + mask) in tensors:
                whole, zeros = result.pop(name), result.pop(other)
                if whole.shape != zeros.shape:
                    raise CheckpointError(
                        f"{where}: '{name}' has the shape {list(whole.shape)}, its mask '{other}' {list(zeros.shape)}",
                        hint=_MADE_PLAIN,
                    )
                result[name.removesuffix("_orig")] = whole * zeros
                pruned += 1
        for length, direction in _WEIGHT_NORM:
            if name.endswith("." + length) and (other := name.removesuffix(length) + direction) in tensors:
                g, v = result.pop(name).float(), result.pop(other).float()
                # One length for each place of an axis, or a single one: torch keeps its shape with 1 along the others.
                axes = [axis for axis in range(v.dim()) if g.dim() != v.dim() or g.shape[axis] == 1]
                norms = torch.linalg.vector_norm(v, dim=axes, keepdim=True)
                if g.numel() != norms.numel():
                    raise CheckpointError(
                        f"{where}: '{name}' of shape {list(g.shape)} holds no lengths of '{other}', "
                        f"{list(v.shape)}, along one axis",
                        hint=_MADE_PLAIN,
                    )
                result[name.removesuffix(length) + "weight"] = v * (g.reshape(norms.shape) / norms)
                normed += 1
    remarks = [f"{pruned} pruned weights multiplied by their masks"] * bool(pruned)
    remarks += [f"{spectral} weights divided by their spectral norms"] * bool(spectral)
    return result, remarks + [f"{normed} weight norms folded into their weights"] * bool(normed)


def _divide_spectral(tensors: Mapping[str, Tensor], result: dict[str, Tensor], where: str) -> int:
    """Put W / (uᵀ W v) in place of W, u and v, W as a matrix of one row a channel; return how many were replaced.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, equations 8 and 9;
    in eval mode torch takes the stored u and v as they are.
    """
    n_replaced = 0
    for name in tensors:
        for parts in _SPECTRAL_NORM:
            start = name.removesuffix(parts[0])
            if name != start and start[-1:] in ("", ".") and all(start + part in tensors for part in parts):
                weight, u, v = (result.pop(start + part).float() for part in parts)
                result[start + "weight"] = weight / _spectral_norm(weight, u, v, f"{where}: '{name}'")
                n_replaced += 1
    return n_replaced


def _spectral_norm(weight: Tensor, u: Tensor, v: Tensor, where: str) -> Tensor:
    """Compute uᵀ W v; the rows of W lie along its first axis, of transposed convolutions along the second.

    The lengths of u and v tell which; where several fit, u is parallel to W v, as power iteration leaves it.
    """
    matrices = [weight.movedim(axis, 0).flatten(1) for axis in range(weight.dim())]
    products = [matrix @ v.flatten() for matrix in matrices if matrix.shape == (u.numel(), v.numel())]
    if not products:
        raise CheckpointError(
            f"{where} of shape {list(weight.shape)} has no axis whose spectral norm {u.numel()} and {v.numel()} "
            "values give",
            hint=_MADE_PLAIN,
        )
    return max((torch.dot(u.flatten(), product) for product in products), key=float)


def _as_float(name: str, tensor: Tensor, where: str) -> Tensor:
    """Widen a tensor to float32, and refuse what no network computes with."""
    if tensor.is_quantized or tensor.dtype in (torch.int8, torch.uint8):
        kind = str(tensor.dtype).removeprefix("torch.")
        raise CheckpointError(
            f"{where}: {name}: expected floating-point weights, found quantized ({kind}) ones",
            hint="export the float checkpoint; deploykit quantizes the graph itself",
        )
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_complex():
        kind = f"{tensor.dtype} ({tensor.layout}, {tensor.device.type})".replace("torch.", "")
        raise CheckpointError(
            f"{where}: {name}: expected a dense floating-point tensor, found {kind}",
            hint="give the checkpoint as it was before it was converted",
        )
    wide = tensor.detach().float()
    if name.endswith("running_var") and (wide < 0).any():
        raise CheckpointError(f"{where}: {name} holds a negative variance, {float(wide.min()):.3g}")
    return wide


def _leaf(path: tuple[str, ...], parts: dict[str, str], tensors: Mapping[str, Tensor], where: str) -> Leaf | None:
    """Return the layer that a module's tensors make; None where they make none."""
    shapes = {part: tuple(tensors[name].shape) for part, name in parts.items()}
    # Running statistics tell a BN from a layer norm, whose weight and bias have the same shapes.
    if any(part in parts for part in _STATISTICS):
        return _norm(path, parts, shapes, where)
    weight = shapes.get("weight", ())
    if shapes.keys() == {"bias"}:
        name = parts["bias"].removesuffix("bias") + "weight"
        raise CheckpointError(f"{where}: '{name}' is missing, its bias is there")
    if len(weight) < 2 or len(weight) > 5:
        return None
    own = {part: name for part, name in parts.items() if part in ("weight", "bias")}
    if "bias" in shapes and shapes["bias"] == (weight[1],) != (weight[0],) and len(weight) > 2:
        return Leaf(path=path, kind="up", shape=(weight[1], weight[0], *weight[2:]), parts=own)
    if "bias" in shapes and shapes["bias"] != (weight[0],):
        raise CheckpointError(
            f"{where}: {parts['bias']}: expected {weight[0]} values as '{parts['weight']}' gives, "
            f"found shape {list(shapes['bias'])}",
            hint="the two are of different models: get the whole checkpoint",
        )
    return Leaf(path=path, kind="linear" if len(weight) == 2 else "conv", shape=weight, parts=own)


def _norm(path: tuple[str, ...], parts: dict[str, str], shapes: dict[str, tuple[int, ...]], where: str) -> Leaf:
    name = next(iter(parts.values())).rpartition(".")[0]
    for part in (*_STATISTICS, *(("weight", "bias") if shapes.keys() & {"weight", "bias"} else ())):
        if part not in parts:
            raise CheckpointError(f"{where}: '{name}.{part}' is missing, the rest of this BN is there")
    own = {part: parts[part] for part in ("weight", "bias", *_STATISTICS) if part in parts}
    width = shapes["running_mean"]
    for part in own:
        if shapes[part] != width or len(width) != 1:
            raise CheckpointError(
                f"{where}: {parts[part]}: expected shape {list(width[:1])}, found {list(shapes[part])}"
            )
    return Leaf(path=path, kind="norm", shape=width, parts=own)


def _flags(names: Sequence[str], known: Iterable[str]) -> str:
    """Return flags that leave out some tensors and no other: whole modules where nothing else lies in them."""
    kept = set(known) - set(names)
    modules: list[str] = []
    for name in names:
        parts = name.split(".")
        homes = (".".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        alone = next(home for home in homes if not any(one == home or one.startswith(home + ".") for one in kept))
        if alone not in modules:
            modules.append(alone)
    return " ".join(f"--ignore {module}" for module in modules[:_MAX_LISTED]) + " …" * (len(modules) > _MAX_LISTED)


def left_over(names: Iterable[str], known: Iterable[str], where: str) -> CheckpointError:
    """Make the error of tensors, among those known, that have no place: dropping them could change the numbers."""
    names = sorted(names)
    why = why_no_densenet(names)
    return CheckpointError(
        f"{where}: tensors that this DenseNet has no place for: {listed(names)}" + (f": {why}" if why else ""),
        hint=f"if they take no part in the answer, leave them out: {_flags(names, known)}",
    )
