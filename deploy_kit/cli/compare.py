"""``deploykit compare``: two runs against each other, if they were measured alike."""

from pathlib import Path
from typing import Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import FailOnRegression, OutputOptions


def compare(
    baseline: Annotated[Path, typer.Argument(help="Baseline run: the output of `bench --json`, or a report.json.")],
    candidate: Annotated[Path, typer.Argument(help="Run to compare with the baseline.")],
    *,
    allow: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated differences to accept, e.g. versions,threads; 'environment' for the whole machine.",
        ),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also draw both runs over one another, as a page in this file.")
    ] = None,
    fail_on_regression: FailOnRegression = None,
    output: OutputOptions,
) -> None:
    """Compare two runs; refuse runs that were measured differently, and name the differences."""
    from deploy_kit.analysis import compare as stage
    from deploy_kit.base.plain_text import shell_word
    from deploy_kit.base.whole_files import write_whole
    from deploy_kit.cli import _bench_outcome, _file_kinds, _output_files, _quantities
    from deploy_kit.cli._bench_tables import comparison
    from deploy_kit.stages.report.page.comparison import RunDrawn, comparison_page

    limit = _quantities.percent("--fail-on-regression", fail_on_regression)
    allowed = tuple(name.strip() for name in (allow or "").split(",") if name.strip())
    if html is not None:
        _output_files.verify_page(html)
    with output.console() as console:
        runs, paths = [], (baseline, candidate)
        line = f"deploykit bench {' '.join(map(shell_word, paths))}"
        rather = f", or their latencies: {line}" if _file_kinds.are_engines(paths) else ""
        for path in paths:
            with _file_kinds.named(path, "compare", "the record of a bench or a report", rather=rather):
                runs.append(stage.read_run(path))
        (old, old_rows), (new, new_rows) = runs
        if old == new:
            console.say(f"{baseline} and {candidate} hold the same measurements: a run is compared with itself")
        compared = stage.compare_runs(old, new, allow=allowed)
        if html is not None:
            drawn = (
                RunDrawn(name=str(baseline), measurements=old.measurements, rows=old_rows),
                RunDrawn(name=str(candidate), measurements=new.measurements, rows=new_rows),
            )
            write_whole(html, comparison_page(compared, *drawn))
        console.result(compared, comparison(compared))
        missed = _bench_outcome.regressions(compared, limit)
        for miss in missed:
            console.say(f"limit not kept: {miss}")
    if missed:
        raise typer.Exit(1)


COMMAND = Command(
    call=compare,
    order=65,
    example="deploykit compare monday.json tuesday.json --fail-on-regression 3%",
)
