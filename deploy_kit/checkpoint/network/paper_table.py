"""A spec laid out as in the paper's Table 1: each stage with its layers and the size of its map; and its MACs."""

import math
from collections.abc import Mapping

from deploy_kit.checkpoint.network import map_sizes
from deploy_kit.checkpoint.network.map_sizes import MapSize, Sides
from deploy_kit.records.densenet import Decoder, DenseBlock, DenseNetSpec, Head, Order, Pyramid, StemConv, UpLevel

Row = tuple[str, str]
_POOLS = {"max": "3×3 max pool, stride 2", "avg": "3×3 average pool, stride 2", "blur": "3×3 max pool, blur, stride 2"}
_HEADS = {"avg": "global average pool", "max": "global max pool", "max_avg": "global max and average pool",
          "avg_max": "global average and max pool", "avg_max_mean": "mean of global average and max pool",
          "flatten": "flatten"}  # fmt: skip
_BETWEEN = {"avg": ", 2{} average pool", "max": ", 2{} max pool", "none": ", no pool"}


def rows(spec: DenseNetSpec, sides: Sides | None) -> list[Row]:
    """Lay a network out, stage by stage.

    Args:
        spec: The network.
        sides: Sides of its input in px; None leaves out the sizes of maps and the MACs.

    Raises:
        InputError: The input leaves no pixel somewhere.
    """
    stages = {entry.stage: entry for entry in map_sizes.maps(spec, sides)} if sides else {}
    entry = f"{spec.in_channels} × {_times(sides)}" if sides else f"{spec.in_channels} × {'?' * spec.ndim}"
    entry += f", repeated {spec.input_repeats} times" * (spec.input_repeats > 1)
    entry += ", normalized by the network itself" * spec.input_norm
    table: list[Row] = [("input", entry)]
    for at, step in enumerate(spec.stem, start=1):
        table.append((f"convolution {at}" if len(spec.stem) > 1 else "convolution",
                      _sized(_stem(step, spec), stages.get(f"stem convolution {at}"))))  # fmt: skip
    if spec.stem_pool != "none":
        table.append(("pooling", _sized(_POOLS[spec.stem_pool], stages.get("stem pool"))))
    for number, block in enumerate(spec.blocks, start=1):
        table.append((f"dense block {number}", _sized(_block(block, spec), stages.get(f"dense block {number}"))))
        if number <= len(spec.transitions):
            table.append((f"transition {number}", _sized(_transition(spec), stages.get(f"transition {number}"))))
    for number, level in enumerate(spec.decoder.levels if spec.decoder else (), start=1):
        name = f"decoder level {number}"
        table.append((name, _sized(_level(level, spec, joined=number <= len(spec.skips)), stages.get(name))))
    if spec.decoder is not None and spec.decoder.pyramid is not None:
        table.append(("feature pyramid", _pyramid(spec.decoder, spec.decoder.pyramid)))
    table += _classification(spec)
    return table + ([("MACs per run", f"{macs(spec, sides):,}")] if sides else [])


def macs(spec: DenseNetSpec, sides: Sides) -> int:
    """Count the multiply-accumulates of one image: out channels · out pixels · (in / groups) · kernel pixels."""
    pixels_of = {entry.stage: math.prod(entry.sides) for entry in map_sizes.maps(spec, sides)}
    total, read = 0, spec.in_channels * spec.input_repeats
    for at, step in enumerate(spec.stem, start=1):
        total += read * step.channels * math.prod(step.kernel) * pixels_of[f"stem convolution {at}"]
        read = step.channels
    for number, block in enumerate(spec.blocks, start=1):
        pixels = pixels_of[f"dense block {number}"]
        for _ in range(block.layers):
            total += pixels * _layer_macs(read, block)
            read += block.growth
        if number <= len(spec.transitions):
            out = spec.transitions[number - 1]
            total += pixels * read * out * spec.transition_kernel**spec.ndim // spec.transition_groups
            read = out
    if spec.decoder is not None:
        return total + _decoder_macs(spec, spec.decoder, pixels_of)
    double = 2 if spec.head_pool in ("max_avg", "avg_max") else 1
    width = read * (1 if spec.map_side is None else spec.map_side**spec.ndim) * double
    trunk = Head(name="", layers=spec.trunk)
    ends = trunk.classes or width
    return total + _linear_macs(trunk, width) + sum(_linear_macs(head, ends) for head in spec.heads)


def _decoder_macs(spec: DenseNetSpec, decoder: Decoder, pixels_of: Mapping[str, int]) -> int:
    """Count those of a decoder; a transposed convolution computes all of its kernel for each pixel that it reads."""
    total, last, pixels = 0, spec.blocks[-1], pixels_of[f"dense block {len(spec.blocks)}"]
    read = last.layers * last.growth if decoder.reads_new else spec.width
    if decoder.pyramid is not None:
        maps = [pixels, *(pixels_of[f"decoder level {number}"] for number in (1, 2, 3))]
        wide, out = decoder.pyramid.channels, decoder.pyramid.branch
        for at, (n, width) in enumerate(zip(maps, (spec.width, *spec.skips), strict=False)):
            total += n * width * wide
            # Each step of a branch but the last of all doubles the sides of the map.
            total += sum(n * 4**step * 9 * (out if step else wide) * out for step in range(max(3 - at, 1)))
        return total + maps[-1] * out * (1 if decoder.pyramid.merge == "add" else 4) * spec.classes
    above = [level.reads_all for level in decoder.levels[1:]] + [decoder.reads_all]
    for at, level in enumerate(decoder.levels):
        total += pixels * read * level.channels * math.prod(level.kernel) * (level.block is not None)
        pixels = pixels_of[f"decoder level {at + 1}"]
        read = level.channels + (spec.skips[at] if at < len(spec.skips) else 0)
        for step in level.convs:
            total += pixels * read * step.channels * math.prod(step.kernel)
            read = step.channels
        if level.block is not None:
            total += sum(
                pixels * _layer_macs(read + n * level.block.growth, level.block) for n in range(level.block.layers)
            )
            new = level.block.layers * level.block.growth
            read = read + new if above[at] else new
    return total + pixels * read * spec.classes * math.prod(decoder.kernel)


def _layer_macs(read: int, block: DenseBlock) -> int:
    inner = block.bottleneck or read
    narrow = read * block.bottleneck // block.groups[0] if block.bottleneck else 0
    return narrow + inner * block.growth * math.prod(block.kernel) // block.groups[1]


def _linear_macs(head: Head, width: int) -> int:
    total = 0
    for step in head.layers:
        total += width * step.channels if step.kind == "linear" else 0
        width = step.channels or width
    return total


def _times(sides: Sides) -> str:
    return "×".join(map(str, sides))


def _sized(text: str, entry: MapSize | None) -> str:
    return f"{text} → {entry.channels} × {_times(entry.sides)}" if entry else text


def _stem(step: StemConv, spec: DenseNetSpec) -> str:
    stride = str(step.stride[0]) if len(set(step.stride)) == 1 else _times(step.stride)
    parts = [f"{_times(step.kernel)} conv{' with bias' * step.bias}, stride {stride}, to {step.channels}"]
    parts += ["BN"] * step.norm + [_name(spec.active("stem")[0])] * step.relu
    return ", ".join(parts)


def _name(activation: str) -> str:
    return {"relu": "ReLU", "leaky_relu": "leaky ReLU", "elu": "ELU", "silu": "SiLU", "gelu": "GELU"}.get(
        activation, ""
    )


def _block(block: DenseBlock, spec: DenseNetSpec) -> str:
    grouped = [f" in {n} groups" if n > 1 else "" for n in block.groups]
    wide = f"{_times(block.kernel)} conv{grouped[1]}"
    ones = _times((1,) * spec.ndim)
    inner = f"{ones} conv{grouped[0]} to {block.bottleneck}, {wide}" if block.bottleneck else wide
    other = "" if spec.activation == "relu" else f", {_name(spec.activation) or 'no activation'}"
    order = "" if spec.concat == "append" else ", new channels first"
    folded = "" if block.bottleneck_norm else ", BN folded"
    return f"[{inner}] × {block.layers}, k = {block.growth}{other}{order}{folded}{_ordered(spec.dense_order)}"


def _ordered(order: Order) -> str:
    return "" if order == "norm_first" else ", activation before BN"


def _transition(spec: DenseNetSpec) -> str:
    side = _times((spec.transition_kernel,) * spec.ndim)
    relu = "" if spec.transition_relu == spec.transition_norm else (", no ReLU" if spec.transition_norm else ", ReLU")
    norm = "" if spec.transition_norm else ", no BN"
    groups = f" in {spec.transition_groups} groups" if spec.transition_groups > 1 else ""
    order = _ordered(spec.transition_order) if spec.transition_norm and spec.transition_relu else ""
    pool = _BETWEEN[spec.transition_pool].format("×2" * (spec.ndim - 1))
    return f"{side} conv{groups}{norm}{relu}{order}{pool}"


def _level(level: UpLevel, spec: DenseNetSpec, *, joined: bool) -> str:
    assert spec.decoder is not None
    order = ("" if spec.decoder.skip_order == "up_first" else ", encoder's maps first") * joined
    if level.block is None:
        convs = ", ".join(f"{_times(step.kernel)} conv{', BN' * step.norm}, ReLU" for step in level.convs)
        joint = "joined with the encoder's map, " if joined else ""
        return f"resized ({spec.decoder.upsampling}), {joint}{convs}{order}"
    read = " of all maps" if level.reads_all else ""
    crop = ", cropped to the end" if spec.decoder.up_crop == "end" else ""
    return f"{_times(level.kernel)} transposed conv{read}, stride 2{crop}{order}, {_block(level.block, spec)}"


def _pyramid(decoder: Decoder, pyramid: Pyramid) -> str:
    merged = "added" if pyramid.merge == "add" else "concatenated"
    return (
        f"of the last four maps, 1×1 convs to {pyramid.channels}, resized ({decoder.upsampling}) and added; "
        f"branches of 3×3 conv to {pyramid.branch}, group norm, ReLU, {merged}"
    )


def _classification(spec: DenseNetSpec) -> list[Row]:
    if spec.decoder is not None:
        end = [] if spec.head_activation == "none" else [spec.head_activation]
        scale = [f"enlarged {spec.decoder.map_scale} times"] * (spec.decoder.map_scale > 1)
        steps = [f"{_times(spec.decoder.kernel)} conv to {spec.classes} classes", *scale, *end]
        return [("classification", ", ".join(steps))]
    start = [] if spec.final_norm else ["no BN"]
    start += [] if spec.final_relu or not spec.final_norm else ["no ReLU"]
    start += (
        ["activation before BN"] if spec.final_norm and spec.final_relu and spec.final_order != "norm_first" else []
    )
    start.append(_HEADS[spec.head_pool])
    start += ["divided by the length of its vector"] * (spec.feature_norm == "l2")
    shared = _steps(Head(name="", layers=spec.trunk), spec)
    end = [] if spec.head_activation == "none" else [spec.head_activation]
    if not spec.heads:
        return [("features", ", ".join([*start, f"{spec.width} channels"]))]
    named = len(spec.heads) > 1
    return [
        (f"head '{head.name}'" if named else "classification", ", ".join([*start, *shared, *_steps(head, spec), *end]))
        for head in spec.heads
    ]


def _steps(head: Head, spec: DenseNetSpec) -> list[str]:
    names = {"norm": "BN", "activation": _name(spec.hidden_activation)}
    return [names.get(step.kind) or f"{step.channels}-way linear" for step in head.layers if names.get(step.kind) != ""]
