"""``deploykit compare``: two runs against each other, if they were measured alike."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def compare(
    baseline: Annotated[Path, typer.Argument(help="A run: what bench --json printed, or a report.json.")],
    candidate: Annotated[Path, typer.Argument(help="The run to hold against it.")],
    allow: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--allow", help="Differences to accept, e.g. versions,threads; environment for all."),
    ] = None,
    fail_on_regression: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--fail-on-regression", help="End with 1 where an engine is slower than this, e.g. 3%."),
    ] = None,
    as_json: _options.Json = False,
) -> None:
    """Compare two runs; refuse those that were not measured alike, and say in what."""
    from deploy_kit.analysis import compare as stage
    from deploy_kit.cli import _quantities
    from deploy_kit.cli._bench import comparison
    from deploy_kit.cli._console import Console

    limit = _quantities.percent("--fail-on-regression", fail_on_regression)
    allowed = tuple(name.strip() for name in (allow or "").split(",") if name.strip())
    with Console(as_json=as_json) as console:
        found = stage.compare_runs(stage.read_bench(baseline), stage.read_bench(candidate), allow=allowed)
        missed = [said for row in found.rows if limit is not None and (said := row.speed_up.regression(limit))]
        console.result(found, comparison(found))
        for said in missed:
            console.say(f"limit not kept: {said}")
    if missed:
        raise typer.Exit(1)


COMMAND = Command(call=compare, order=65)
