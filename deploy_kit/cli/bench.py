"""``deploykit bench``: latency, measured in turns."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def bench(
    all_engines: Annotated[bool, typer.Option("--all", help="Measure every engine in the store, in turns.")] = False,
    rounds: Annotated[Optional[int], typer.Option(help="Turns of every engine.")] = None,  # noqa: UP045
    runs: Annotated[Optional[int], typer.Option(help="Timed runs in one turn.")] = None,  # noqa: UP045
    warmup: Annotated[Optional[float], typer.Option(help="Limit of the warm-up, in seconds.")] = None,  # noqa: UP045
    span: Annotated[Optional[str], typer.Option(help="compute, or whole with copying in and out.")] = None,  # noqa: UP045
    profile: Annotated[bool, typer.Option("--profile", help="Also time each layer, in runs of their own.")] = False,
    export_profile: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--export-profile", help="Write the profile as trtexec does (JSON); implies --profile."),
    ] = None,
    recipe: _options.RecipeName = None,
    device: _options.DeviceName = "local",
    store: _options.StorePath = _options.STORE,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again, even if the store has it.")] = False,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Measure the latency of the newest engine, or of all in turns."""
    from deploy_kit import bench as stage
    from deploy_kit import pipeline
    from deploy_kit import recipe as recipes
    from deploy_kit.cli import _layers, _steps
    from deploy_kit.cli._console import Console, table
    from deploy_kit.errors import StageError
    from deploy_kit.records import Artifact
    from deploy_kit.report import cells
    from deploy_kit.results import Row

    asked = _steps.Asked(store=store, recipe=recipe, device=device)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        wanted = True if profile or export_profile else None
        said = {"rounds": rounds, "runs": runs, "warmup_s": warmup, "span": span, "profile": wanted}
        data = run.recipe.model_dump(mode="json", exclude_none=True)
        data["bench"] |= {key: value for key, value in said.items() if value is not None}
        part = recipes.parse(data).bench
        _layers.verify_export(export_profile, all_engines=all_engines)
        newest = _steps.newest_engine(run, console)
        engines = pipeline.distinct(run.store.all(Artifact, "build")) if all_engines else (newest,)
        made, reused = stage.run(engines, part, store=run.store, link=run.link, watch=run.watch, fresh=fresh)
        if made.failed:
            raise StageError(f"{made.failed[0].label}: {made.failed[0].why}")
        if not made.measurements:
            raise _steps.not_run(made.not_run[0].label, made.not_run[0].why)
        if reused:
            console.say("measured before, on this machine: --fresh measures again")
        rows = [pipeline.join(Row(label=engine.label, artifact=engine), made, part.baseline) for engine in engines]
        lines = []
        for row in rows:
            _, _, _, _, _, p50, p99, faster, _ = cells(row)
            why = next((entry.why for entry in made.not_run if entry.label == row.label), "")
            samples = next((str(len(m.samples_ms)) for m in made.measurements if m.label == row.label), "–")
            lines.append((row.label, samples, p50, p99, faster, f"not run: {why}" if why else "measured"))
        headings = ("engine", "samples", "p50", "p99", "speed-up", "")
        for note in filter(None, (m.starved for m in made.measurements)):
            console.say(f"note: {note}")
        _layers.export(made.measurements, export_profile, console)
        console.result(made, "\n\n".join([table(headings, lines), *_layers.texts(rows)]))


COMMAND = Command(call=bench, order=60)
