"""``deploykit inspect``: what is this file."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command, _facts, _options


def inspect(
    path: Annotated[Path, typer.Argument(help="A checkpoint, an ONNX graph or a built engine.")],
    size: _facts.InputSize = None,
    state_key: _facts.StateKey = None,
    head: _facts.Head = None,
    ignore: _facts.Ignore = None,
    probe: _facts.Probe = None,
    strict: _facts.Strict = False,
    stem_stride: _facts.StemStride = None,
    stem_pool: _facts.StemPool = None,
    concat: _facts.Concat = None,
    activation: _facts.Activation = None,
    outer_activation: _facts.OuterActivation = None,
    hidden_activation: _facts.HiddenActivation = None,
    slope: _facts.Slope = None,
    transition_relu: _facts.TransitionRelu = None,
    transition_pool: _facts.TransitionPool = None,
    final_relu: _facts.FinalRelu = None,
    eps: _facts.Eps = None,
    head_pool: _facts.HeadPool = None,
    head_activation: _facts.HeadActivation = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Say what a file is: architecture, parameters, MACs, precision, passport."""
    given = dict(locals())
    from deploy_kit import recipe as recipes
    from deploy_kit.analysis import inspection as stage
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.recipe import overrides
    from deploy_kit.stages.report import size as size_text

    data = overrides.for_checkpoint(str(path)).model_dump(mode="json", exclude_none=True)
    data["source"] |= _facts.source(given)
    sides = None if size is None else tuple(_facts.numbers(size, "x", "--input 224x224"))
    found = stage.inspect_file(path, recipes.parse_recipe(data).source, sides)
    lines = [("file", f"{found.path} ({size_text(found.size_bytes)})"), ("is", found.title), *found.facts]
    for what, specs in (("input", found.inputs), ("output", found.outputs)):
        lines += [(what, f"{spec.name} {spec.dtype} {list(spec.shape)}") for spec in specs]
    if found.operators:
        lines.append(("operators", ", ".join(f"{n} {name}" for name, n in found.operators)))
    if found.passport:
        lines.append(("made by", "; ".join(f"{k} {v}" for k, v in found.passport.made_by.rows)))
        lines.append(("parent", found.passport.parent))
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
        console.result(found, pairs(lines))


COMMAND = Command(call=inspect, order=80)
