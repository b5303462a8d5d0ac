"""Sizes of maps and of the input: what a network requires, what its stem is known for, what each stage ends with."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.errors import InputError
from deploy_kit.base.plain_text import shell_word
from deploy_kit.recipe import PreprocessTable
from deploy_kit.records.artifacts import BareInput, Preprocess, TensorSpec
from deploy_kit.records.densenet import Decoder, DenseNetSpec, UpLevel

if TYPE_CHECKING:
    import onnx_ir as ir

UNKNOWN = (
    "how images become its input is not known: steps that read images ask for it (export again with --mean and --std)"
)
_LARGE, _SMALL = 224, 32  # ImageNet's crop and CIFAR's image
_CONVENTION = "convention"
Sides = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class MapSize:
    """A feature map behind one stage.

    Attributes:
        stage: Name of the stage, e.g. ``dense block 1``.
        channels: Its channels.
        sides: Its sides in px.
    """

    stage: str
    channels: int
    sides: Sides


def maps(spec: DenseNetSpec, sides: Sides) -> tuple[MapSize, ...]:
    """Compute the map behind each stage.

    Args:
        spec: The network.
        sides: Sides of the input in px.

    Raises:
        InputError: A map would have no pixel left.
    """
    stages: list[MapSize] = []

    def add(stage: str, channels: int, now: Sides) -> Sides:
        if min(now) < 1:
            size = "×".join(map(str, sides))
            raise InputError(f"an input of {size} px leaves no pixel behind {stage}", hint="give a larger --input")
        stages.append(MapSize(stage=stage, channels=channels, sides=now))
        return now

    now, ends = sides, list[Sides]()
    for at, step in enumerate(spec.stem):
        strided = zip(now, step.kernel, step.stride, strict=True)
        now = tuple((side + 2 * (kernel // 2) - kernel) // stride + 1 for side, kernel, stride in strided)
        now = add(f"stem convolution {at + 1}", step.channels, now)
    ends += [now] * (spec.decoder is not None and not spec.decoder.dense)
    if spec.stem_pool != "none":
        now = add("stem pool", spec.stem_channels, tuple((side - 1) // 2 + 1 for side in now))
    width = spec.stem_channels
    for number, block in enumerate(spec.blocks, start=1):
        width += block.layers * block.growth
        now = add(f"dense block {number}", width, now)
        if number <= len(spec.transitions):
            width = spec.transitions[number - 1]
            halved = spec.transition_pool != "none"
            ends.append(now)
            now = add(f"transition {number}", width, tuple(side // 2 for side in now) if halved else now)
    if spec.decoder is not None:
        stages += _up(spec, spec.decoder, [sides, *ends], now)
    return tuple(stages)


def _up(spec: DenseNetSpec, decoder: Decoder, ends: Sequence[Sides], now: Sides) -> list[MapSize]:
    """Compute the map behind each level of a decoder.

    Args:
        spec: The network.
        decoder: Its decoder.
        ends: Sides of the maps that it joins, the input's before them, from the largest down.
        now: Sides of the smallest map.

    Raises:
        InputError: A transposed convolution gives fewer pixels than the encoder's map of that level has.
    """
    stages = []
    levels: Sequence[UpLevel | None] = decoder.levels or [None] * 3
    for number, (level, skip, aim) in enumerate(zip(levels, (*spec.skips, 0), reversed(ends), strict=False), start=1):
        even = all(side == 2 * below for side, below in zip(aim, now, strict=True))
        fixed = level is None or (level.block is not None and (decoder.up_crop == "end" or min(level.kernel) != 3))
        if fixed and not even:
            times = math.prod(map(max, (step.stride for step in spec.stem))) * 2 ** len(spec.transitions)
            times *= 2 if spec.stem_pool != "none" else 1
            raise InputError(
                f"an input of {'×'.join(map(str, ends[0]))} px is not halved evenly down to the last block, and a "
                f"decoder gives {'×'.join(str(2 * below) for below in now)} px where {'×'.join(map(str, aim))} are "
                "joined",
                hint="name a size that is: --input "
                + "x".join(str(max(1, round(side / times)) * times) for side in ends[0]),
            )
        if level is None:
            channels = decoder.pyramid.channels if decoder.pyramid is not None else 0
        else:
            grown = level.block.layers * level.block.growth if level.block is not None else 0
            channels = level.convs[-1].channels if level.convs else level.channels + skip + grown
        stages.append(MapSize(stage=f"decoder level {number}", channels=channels, sides=aim))
        now = aim
    return stages


def usual(spec: DenseNetSpec) -> tuple[Sides, str] | None:
    """Return the input's sides that the network fixes or its stem is known for, and why; None where nothing tells."""
    if spec.map_side is not None:
        fits = [side for side in range(1, 1025) if _ends_with(spec, side) == spec.map_side]
        if not fits:
            return None
        # Several sides end with the same map; one that the transitions halve without a remainder comes first.
        even = [side for side in fits if side % 2 ** len(spec.transitions) == 0]
        return ((even or fits)[0],) * spec.ndim, "the flattened map fixes it"
    if spec.ndim != 2 or spec.decoder is not None:  # networks of maps are trained on images of any size
        return None
    reduced = spec.stem[0].stride[0] * (2 if spec.stem_pool != "none" else 1)
    if reduced >= 4:
        return (_LARGE, _LARGE), f"{_CONVENTION}: a stem that quarters the map is for 224×224 images"
    if reduced == 1:
        return (_SMALL, _SMALL), f"{_CONVENTION}: a stem that keeps the map is for 32×32 images"
    return None


def compared(spec: DenseNetSpec) -> Sides:
    """Return the sides at which forward passes are compared at little cost: the last map has two pixels a side.

    Of a single pixel the maximum would be the mean.
    """
    once = 2 * (2 if spec.stem_pool != "none" else 1) * 2 ** len(spec.transitions)
    return tuple(once * stride for stride in spec.stem[0].stride)


def _ends_with(spec: DenseNetSpec, side: int) -> int:
    try:
        return maps(spec, (side,) * spec.ndim)[-1].sides[0]
    except InputError:
        return 0


def input_of(
    spec: DenseNetSpec,
    sides: Sides | None,
    path: Path,
    *,
    stated: PreprocessTable | None,
    carried: Preprocess | None,
    beside: tuple[Sides, str] | None = None,
) -> tuple[Preprocess | BareInput, tuple[str, ...]]:
    """Decide what the input is: as a person states it, as the file does, else of the size the network is known for.

    Args:
        spec: The network.
        sides: Sides of the input in px, where a person names them.
        path: The checkpoint, for messages.
        stated: Preprocessing that a person states, with a size or without.
        carried: Preprocessing that the file carries.
        beside: Sides that the file's graph or a file beside it states, and which.

    Returns:
        The input, and remarks for people.

    Raises:
        InputError: The size is not known, or does not fit the network.
    """
    known = _known(spec, sides, carried, beside)
    remarks: tuple[str, ...] = ()
    preprocess = carried
    if stated is not None:
        # What is only a convention must hold for images as they are: these are looked at, and refused if they differ.
        if stated.sides is None and (known is None or (stated.resize is not None and known[1].startswith(_CONVENTION))):
            raise InputError(f"{path}: the file does not say how large its input is", hint="name it: --input 224x224")
        preprocess = stated.record(known[0] if known is not None else None)
        remarks = () if stated.sides is not None or known is None else _taken(known)
    elif preprocess is not None and sides is not None and len(sides) == 2:
        preprocess = dataclasses.replace(preprocess, height=sides[0], width=sides[1], resize=None)
    if preprocess is not None:
        if preprocess.input_pixels:
            raise InputError(
                f"{path}: its preprocessing says that it takes pixels, and a checkpoint takes normalized tensors",
                hint="store the preprocessing without 'input_pixels', and export with --input-pixels",
            )
        _verify_channels(preprocess, spec, path)
        _verify_sides(spec, (preprocess.height, preprocess.width), path)
        return preprocess, (*remarks, *in_place_of(carried, preprocess))
    if known is None:
        raise InputError(
            f"{path}: the file does not say how large its input is",
            hint=f"name it: --input {'x'.join(['64'] * spec.ndim)}; for images also --mean 0.485,0.456,0.406 --std "
            "0.229,0.224,0.225, or 'source.preprocess' in a recipe",
        )
    _verify_sides(spec, known[0], path)
    return BareInput(shape=(spec.in_channels, *known[0])), (*_taken(known), UNKNOWN)


def in_place_of(carried: Preprocess | None, preprocess: Preprocess | BareInput) -> tuple[str, ...]:
    """Return a remark where a person's word replaces, whole, the preprocessing that the file carries."""
    if carried is None or preprocess == carried:
        return ()
    return (f"in place of the preprocessing that the file states: {carried.words}",)


def _known(
    spec: DenseNetSpec, sides: Sides | None, carried: Preprocess | None, beside: tuple[Sides, str] | None
) -> tuple[Sides, str] | None:
    """Return the sides of the input from the best source there is, and that source; empty if a person named them."""
    if sides is not None:
        return sides, ""
    if carried is not None:
        return (carried.height, carried.width), "stated by the file"
    return (beside[0], f"stated by {beside[1]}") if beside is not None else usual(spec)


def _taken(known: tuple[Sides, str]) -> tuple[str, ...]:
    sides, why = known
    return (f"input size {'×'.join(map(str, sides))}: {why}",) if why else ()


def _verify_channels(preprocess: Preprocess, spec: DenseNetSpec, path: Path) -> None:
    if spec.ndim != 2:
        raise InputError(
            f"{path}: a {spec.ndim}-D network, and no image preprocessing gives its input",
            hint=f"leave --mean and --std out: --input {'x'.join(['64'] * spec.ndim)}",
        )
    if preprocess.channels != spec.in_channels:
        raise InputError(
            f"{path}: the checkpoint reads {spec.in_channels} channels, "
            f"the preprocessing gives {preprocess.channels} ({preprocess.color})",
            hint="set the color to gray, rgb or bgr as the model was trained"
            if spec.in_channels in (1, 3)
            else "leave --mean and --std out: no image has so many channels",
        )


def _verify_sides(spec: DenseNetSpec, sides: Sides, path: Path) -> None:
    if len(sides) != spec.ndim:
        raise InputError(
            f"{path}: expected {spec.ndim} sides of the input, found {len(sides)}",
            hint=f"e.g. --input {'x'.join(['64'] * spec.ndim)}",
        )
    last = maps(spec, sides)[-1].sides
    if spec.map_side is not None and set(last) != {spec.map_side}:
        fixed = usual(spec)
        raise InputError(
            f"{path}: its head reads a flattened map of side {spec.map_side}, this input ends with "
            f"{'×'.join(map(str, last))}",
            hint=f"--input {'x'.join(map(str, fixed[0]))}" if fixed else "",
        )


def input_of_graph(
    model: "ir.Model", path: Path, sides: Sides | None = None, *, stated: PreprocessTable | None = None
) -> Preprocess | BareInput:
    """Decide what the input of an ONNX graph is: as a person states it, as the file does, else bare.

    Args:
        model: The graph.
        path: Its file, for messages.
        sides: Sides of the input in px, where a person names them.
        stated: Preprocessing that a person states.

    Raises:
        InputError: Nothing says how images become its input, and it has several inputs or none, or its sides are open.
    """
    from deploy_kit.graph import onnx_file

    preprocess = onnx_file.preprocess(model)
    if stated is not None:
        if stated.sides is None and sides is None:
            sides = _bare(onnx_file.specs(onnx_file.inputs(model)), path).shape[1:]
        return stated.record(sides if sides is None or len(sides) == 2 else None)
    if preprocess is None:
        return _bare(onnx_file.specs(onnx_file.inputs(model)), path)
    if sides is not None and len(sides) == 2:
        return dataclasses.replace(preprocess, height=sides[0], width=sides[1], resize=None)
    return preprocess


def _bare(inputs: Sequence[TensorSpec], path: Path) -> BareInput:
    shape = inputs[0].shape[1:] if len(inputs) == 1 else ()
    sides = tuple(side for side in shape if isinstance(side, int))
    if not sides or len(sides) != len(shape):
        raise InputError(
            f"{path}: the file does not say how images become its input, and its size is open",
            hint=f"set it: deploykit export {shell_word(path)} --input 224x224, for images with "
            "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    return BareInput(shape=sides)


def input_range(means: Sequence[float]) -> str:
    """Name the range of pixel values that estimated means of the input fit."""
    middle = sum(means) / len(means)
    if middle > 20:
        return "about 0 to 255"
    return "about 0 to 1" if middle > 0.3 else "centered on 0"
