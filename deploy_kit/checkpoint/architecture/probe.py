"""One input with its logits → the facts that nothing else decides: combinations are tried until exactly one matches."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError, InputError, no_such_file
from deploy_kit.checkpoint.architecture.decide import DECODER_FACTS
from deploy_kit.checkpoint.architecture.heads import DOUBLE_POOLS
from deploy_kit.checkpoint.architecture.structure import ParsedStructure
from deploy_kit.checkpoint.facts import Source
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.images.arrays import read_arrays
from deploy_kit.records.densenet import DenseNetSpec

# The equations run in float64, the probe's logits are float32: through 264 layers the two were seen 2e-6 apart.
TOLERANCE = 1e-4
_MAX_CHANGES, _MAX_TRIED = 4, 4_000
_ALTERNATIVES: dict[str, tuple[Any, ...]] = {
    "concat": ("append", "prepend"),
    "stem_stride": (1, 2),
    "stem_pool": ("max", "none", "blur", "avg"),
    "transition_relu": (True, False),
    "final_relu": (True, False),
    "transition_pool": ("avg", "max", "none"),
    "activation": ("relu", "leaky_relu", "elu", "silu", "gelu"),
    "outer_activation": ("relu", "leaky_relu", "elu", "silu", "gelu"),
    "hidden_activation": ("relu", "leaky_relu", "none", "elu", "silu", "gelu"),
    "dense_order": ("norm_first", "activation_first"),
    "transition_order": ("norm_first", "activation_first"),
    "final_order": ("norm_first", "activation_first"),
    "head_pool": ("avg", "max", "avg_max_mean"),
    "feature_norm": ("none", "l2"),
    "skip_order": ("up_first", "skip_first"),
    "up_crop": ("start", "end"),
    "upsampling": ("nearest", "bilinear"),
    "map_scale": (4, 1, 2, 8),
    "eps": (1e-5, 1e-3),
    "slope": (0.01, 0.1, 0.2),
}
_ACTIVATIONS = ("activation", "outer_activation", "hidden_activation")
_SHAPE = 'expected an npz file with arrays "input" (N, C, …) and "logits" (N, classes), float32'


def choose(parsed: ParsedStructure, file: Path) -> ParsedStructure:
    """Try what is open on one input and its logits, fewest changes first.

    Args:
        parsed: A network with facts that are guessed.
        file: An npz file with ``input`` and ``logits``.

    Raises:
        InputError: The probe cannot be read, or does not fit the network.
        CheckpointError: No combination matches, or several do.
    """
    x, logits = _read(file, parsed.spec)
    x, logits = x[:1], logits[:1]  # one image tells as much as many
    n_tried = 0
    closest = (float("inf"), "")
    # Fewest changes first: a combination that changes a fact without effect matches as well, and would be ambiguous.
    for n_changes in range(_MAX_CHANGES + 1):
        matches: list[tuple[float, dict[str, Any]]] = []
        for change in changes(parsed, n_changes, parsed.guessed):
            n_tried += 1
            if n_tried > _MAX_TRIED:
                break
            difference = _difference(changed(parsed.spec, change), parsed, x, logits)
            closest = min(closest, (difference, _text(change)))
            if difference <= TOLERANCE:
                matches.append((difference, change))
        if len(matches) == 1:
            return _settled(parsed, matches[0][1], f"{file.name}: the one match, {matches[0][0]:.1g} off")
        if matches:
            combinations = "; ".join(_text(change) for _, change in matches)
            raise CheckpointError(
                f"{file}: {len(matches)} combinations give these logits: {combinations}",
                hint="give a larger input, or say the facts by flags",
            )
    raise CheckpointError(
        f"{file}: none of {min(n_tried, _MAX_TRIED):,} combinations gives these logits; the closest, {closest[1]}, is "
        f"{closest[0]:.2g} of the largest logit off",
        hint=f"tried: {', '.join(parsed.guessed) or 'nothing was open'}; is the input preprocessed as in training, and "
        "are the logits from before any softmax?",
    )


def _read(file: Path, spec: DenseNetSpec) -> tuple[Tensor, np.ndarray]:
    if not file.exists():
        raise no_such_file(file, hint="check the path given to --probe")
    try:
        arrays = read_arrays(file, ("input", "logits"))
        x, logits = (np.asarray(arrays[name], np.float64) for name in ("input", "logits"))
    except (InputError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{file}: cannot be read: {_SHAPE}, found {error}") from error
    if x.ndim == spec.ndim + 2 and x.shape[1] != spec.in_channels and x.shape[-1] == spec.in_channels:
        x = np.moveaxis(x, -1, 1)  # as Keras keeps images
    outputs = (len(x), spec.classes, *(logits.shape[2:] if spec.decoder is not None else ()))
    axes = x.ndim if spec.decoder is not None else 2
    if x.ndim != spec.ndim + 2 or x.shape[1] != spec.in_channels or logits.shape != outputs or logits.ndim != axes:
        raise InputError(
            f"{file}: found input {list(x.shape)} and logits {list(logits.shape)}, expected {spec.in_channels} "
            f"channels on {spec.ndim} axes and {spec.classes} classes"
        )
    if not logits.any():
        raise InputError(f"{file}: its logits are all zero: nothing can be compared")
    return torch.from_numpy(np.ascontiguousarray(x)), logits


def changes(parsed: ParsedStructure, n: int, facts: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Yield every way to change `n` of some facts."""
    spec = parsed.spec
    for names in itertools.combinations([name for name in facts if name in _ALTERNATIVES], n):
        choices = [[value for value in _values(name, spec) if value != _value(name, spec)] for name in names]
        for values in itertools.product(*choices):
            change = dict(zip(names, values, strict=True))
            kinds = [change.get(name, getattr(spec, name)) for name in _ACTIVATIONS]
            if "slope" not in change or "leaky_relu" in kinds:
                yield change


def _values(name: str, spec: DenseNetSpec) -> tuple[Any, ...]:
    if name == "head_pool" and spec.head_pool in DOUBLE_POOLS:
        return DOUBLE_POOLS
    if name != "stem_stride":
        return _ALTERNATIVES[name]
    even = [(side,) * spec.ndim for side in _ALTERNATIVES[name]]
    return (*even, (1, *(2,) * (spec.ndim - 1))) if spec.ndim == 3 else tuple(even)


def _value(name: str, spec: DenseNetSpec) -> Any:
    if name in DECODER_FACTS:
        return getattr(spec.decoder, name)
    return spec.stem[0].stride if name == "stem_stride" else getattr(spec, name)


def changed(spec: DenseNetSpec, change: dict[str, Any]) -> DenseNetSpec:
    """Return a network with some facts changed."""
    rest = {name: value for name, value in change.items() if name not in ("stem_stride", *DECODER_FACTS)}
    if spec.decoder is not None:
        within = {name: value for name, value in change.items() if name in DECODER_FACTS}
        rest["decoder"] = dataclasses.replace(spec.decoder, **within)
    if "stem_stride" in change:
        first = dataclasses.replace(spec.stem[0], stride=change["stem_stride"])
        rest["stem"] = (first, *spec.stem[1:])
    return dataclasses.replace(spec, **rest)


def _difference(spec: DenseNetSpec, parsed: ParsedStructure, x: Tensor, logits: np.ndarray) -> float:
    """Measure how far a network's logits are off, relative to the largest of `logits`; infinity where it cannot run."""
    equations = Equations(spec, parsed.names, parsed.originals, channels_last=parsed.channels_last)
    try:
        computed = equations.logits(x)[0].numpy()
    except RuntimeError:  # a stride or a pool that leaves no pixel, or a flattened map of another size
        return float("inf")
    if computed.shape != logits.shape:
        return float("inf")
    difference = float(np.abs(computed - logits).max() / np.abs(logits).max())
    return difference if difference == difference else float("inf")  # NaN


def _text(change: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in change.items()) or "as decided without it"


def _settled(parsed: ParsedStructure, change: dict[str, Any], outcome: str) -> ParsedStructure:
    """Apply a change; every fact that was open now comes from the probe."""
    proof = Source("probe", f"probe {outcome}")
    sources = {name: proof if source.is_guess else source for name, source in parsed.sources.items()}
    texts = tuple((name, source.text) for name, source in sources.items())
    spec = dataclasses.replace(changed(parsed.spec, change), sources=texts)
    return dataclasses.replace(parsed, spec=spec, sources=sources, remarks=(*parsed.remarks, proof.text))
