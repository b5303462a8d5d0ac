"""``deploykit slim``: fewer multiply-accumulates, as another network."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions

if TYPE_CHECKING:
    from deploy_kit.records.slimming import Slimmed, SlimmedLayer, Slimming


def slim(
    *,
    macs: Annotated[
        float | None, typer.Option(help="Share of the multiply-accumulates that may be left, e.g. 0.6.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option(help="Find the smallest share within this top-1 drop instead, e.g. 0.3pt.")
    ] = None,
    tune: Annotated[
        str | None, typer.Option(help="Images that choose the share for --max-drop; labels are used if they have any.")
    ] = None,
    target: Annotated[
        str, typer.Option(help="Engine the graph is for: its milliseconds are measured, its kernels give the step.")
    ] = "onnxruntime",
    price: Annotated[
        Literal["ms", "macs"],
        typer.Option(help="What a layer costs: the target's ms, or multiply-accumulates, the same on any machine."),
    ] = "ms",
    channel_step: Annotated[
        int | None, typer.Option(min=1, help="Keep multiples of this many channels; by default the target's.")
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(help="Images to train the slimmed network on, to the checkpoint's answers; without labels."),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Most minutes of --distill; by default 10.", show_default=False)
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what was kept in each layer, and what it cost.")
    ] = False,
    step: Annotated[
        StepOptions, Only("model", "images", "calibration", "skip_bad", "orientation", "recipe", "store", "out")
    ],
    output: OutputOptions,
) -> None:
    """Remove channels that the answers depend on least, and refit the rest to the calibration images."""
    from deploy_kit import pipeline
    from deploy_kit.api import slimming
    from deploy_kit.cli import _output_files, _quantities, _step_inputs, _steps
    from deploy_kit.cli._console import pairs
    from deploy_kit.recipe import overrides, targets
    from deploy_kit.store import Store

    request = slimming.SlimRequest(
        macs=macs,
        max_drop_pp=_quantities.points("--max-drop", max_drop),
        tune=tune,
        step=channel_step or targets.find_target(target).channels,
        target=target if price == "ms" else None,
        distill=distill,
        minutes=minutes,
    )
    with output.console() as console:
        base = overrides.with_slim(_steps.recipe_in_force(step, Store(step.store), console), None)
        with _steps.open_run(step, console, base) as run:
            simplified = pipeline.float_graph(run, _step_inputs.simplified(run, console))
            found = slimming.slim_in_run(run, simplified, request, explain_on=target if explain else None)
            texts = [pairs(_rows(found))]
            if found.slimmed is not None:
                _output_files.copy_out(run, found.slimmed.onnx, step.out, console)
                texts += [_layers(found, found.slimmed)] if explain else []
                texts.append(f"onnx: {run.store.root / found.slimmed.onnx.path}")
            console.result(found, "\n\n".join(texts))
    if found.slimmed is None:
        raise typer.Exit(1)


def _rows(found: "Slimming") -> list[tuple[str, str]]:
    from deploy_kit.cli import _slim_search

    rows = list[tuple[str, str]]()
    if found.search is not None:
        rows += _slim_search.rows(found.search)
    if found.slimmed is None:
        return [*rows, ("answer", "nothing within the budget")]
    small = found.slimmed
    rows.append(("multiply-accumulates", f"{small.macs_before:,} → {small.macs_after:,} ({small.share:.2f})"))
    kept, all_ = sum(layer.kept for layer in small.layers), sum(layer.channels for layer in small.layers)
    rows.append(("channels", f"{all_} → {kept} in {len(small.layers)} layers"))
    if small.price:
        rows.append(("saved where", f"most {small.price} are saved for the least error"))
    rows += small.onnx.made_by.rows
    return [*rows, *(("left alone", f"{n} convolutions: {reason}") for reason, n in found.refused)]


def _layers(found: "Slimming", small: "Slimmed") -> str:
    """Draw a line for each layer, and behind the layers of a block a line with their sums."""
    from itertools import groupby

    from deploy_kit.cli._console import table

    headings = ("layer", "channels", "MACs", "predicted KL", "seen KL", "ms in float, by layer")
    times = {row.name: (row.before_ms, row.after_ms) for row in found.savings}
    rows = list[tuple[str, ...]]()
    for block, group in groupby(small.layers, key=lambda layer: layer.name.partition(".")[0]):
        layers = list(group)
        rows += (_cells(layer.name, [layer], times) for layer in layers)
        if len(layers) > 1:
            rows.append(_cells(f"{block}, all", layers, times))
    drawn = table(headings, rows)
    return f"{drawn}\n\nno times: {found.no_savings}" if found.no_savings else drawn


def _cells(name: str, layers: "list[SlimmedLayer]", times: dict[str, tuple[float, float]]) -> tuple[str, ...]:
    known = [times[layer.name] for layer in layers if layer.name in times]
    before, after = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
    return (
        name,
        f"{sum(layer.channels for layer in layers)} → {sum(layer.kept for layer in layers)}",
        f"{sum(layer.macs_before for layer in layers):,} → {sum(layer.macs_after for layer in layers):,}",
        f"{sum(layer.predicted for layer in layers):.2g}",
        f"{sum(layer.seen for layer in layers):.2g}",
        f"{before:.3f} → {after:.3f}" if known else "–",
    )


COMMAND = Command(call=slim, order=25, example="deploykit slim best.pth --calibration calib/ --macs 0.6")
