"""Which engines a bench measures, and which requests it refuses before any work."""

from collections.abc import Sequence

from deploy_kit import pipeline
from deploy_kit.analysis import latency_rows
from deploy_kit.base.errors import RequestError, UnknownNameError, nearest
from deploy_kit.cli import _quantities, _step_inputs
from deploy_kit.cli._console import Console
from deploy_kit.measure import scenarios
from deploy_kit.pipeline import Run
from deploy_kit.recipe import BenchTable
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.engine_table import plain, typed
from deploy_kit.stages import bench


def select_engines(
    run: Run, console: Console, table: BenchTable, *, everything: bool, engines: str | None, variants: str | None
) -> tuple[Artifact, ...]:
    """Return the engines to measure: those named, all, or the newest.

    Raises:
        RequestError: Nothing was built here yet, or nothing that is both.
        UnknownNameError: No engine, or no variant, of a name was built here.
    """
    built = _step_inputs.require_engines(run)
    if everything or engines or variants:
        chosen = matching_engines(built, table, engines=engines, variants=variants)
        _step_inputs.tell_inputs_apart(run, console, chosen)
        return chosen
    newest = _step_inputs.newest_engine(run, console)
    if not table.batch:
        return (newest,)
    return matching_engines([engine for engine in built if engine.label == newest.label], table)


def matching_engines(
    built: list[Artifact], table: BenchTable, *, engines: str | None = None, variants: str | None = None
) -> tuple[Artifact, ...]:
    """Choose engines of the store by engine and variant: of each label the newest that takes a batch of the table.

    Args:
        built: Newest first.
        table: Names the batches.
        engines: Comma list of engines; all if None.
        variants: Comma list of variants; all if None.

    Raises:
        RequestError: No engine is of both.
        UnknownNameError: No engine, or no variant, of a name was built here.
    """
    known = {"engine": {a.engine or "": a for a in built}, "variant": {a.name: a for a in built}}
    named = {"engine": _quantities.names(engines), "variant": _quantities.names(variants)}
    for noun, names in named.items():
        for name in names:
            if name not in known[noun]:
                raise UnknownNameError(f"no {noun} '{name}' was built here", hint=nearest(name, known[noun]))
    matching = [
        a
        for a in built
        if (not named["engine"] or a.engine in named["engine"]) and (not named["variant"] or a.name in named["variant"])
    ]
    if not matching:
        raise RequestError(
            f"no engine is both '{engines}' and '{variants}'", hint="deploykit build --engine … --variant …"
        )
    if not table.batch:
        return pipeline.distinct(matching)
    by_batch = [pipeline.distinct([a for a in matching if bench.takes(a, batch)]) for batch in table.batch]
    taking = dict.fromkeys(a for batch_engines in by_batch for a in batch_engines)
    # An engine that takes no batch of the table stays: the bench reports why it was not measured.
    lacking = [a for a in pipeline.distinct(matching) if a.label not in {b.label for b in taking}]
    return (*taking, *lacking)


def verify_target_qps(table: BenchTable, target_qps: float | None) -> None:
    """Refuse an arrival rate for a scenario without arrivals.

    Raises:
        RequestError: It was given for another scenario than ``server``.
    """
    if target_qps is not None and "target_qps" not in scenarios.get_scenario(table.scenario).needs:
        raise RequestError(f"--target-qps: scenario '{table.scenario}' has no arrival rate", hint="--scenario server")


def with_baseline(table: BenchTable, engines: Sequence[Artifact], named: str | None) -> BenchTable:
    """Return the table with the label of the baseline: the one named, as it is typed, or the first fp32 engine.

    Args:
        table: Bench table in force.
        engines: Engines that are measured.
        named: ``fp32``, ``fp32@onnxruntime`` or the label itself; None where none was named.

    Raises:
        RequestError: No engine of this run, or several, have the name.
    """
    labels = [engine.label for engine in engines]
    if named is None:
        return table.model_copy(update={"baseline": latency_rows.default_baseline(table, labels)})
    meant = [label for label in labels if plain(label) == plain(named)]
    meant = meant or [engine.label for engine in engines if engine.name == named]
    if len(meant) > 1:
        choices = ", ".join(f"--baseline {typed(label)}" for label in meant)
        raise RequestError(f"--baseline: '{named}' is {len(meant)} engines of this run", hint=choices)
    return table.model_copy(update={"baseline": meant[0] if meant else named})


def verify_baseline(table: BenchTable, engines: Sequence[Artifact], *, named: str | None, earlier: bool) -> None:
    """Refuse a baseline that is not measured, before any work: one named here, or one that a limit needs.

    Args:
        table: Bench table in force.
        engines: Engines that are measured.
        named: Label given on the command line; None where none was.
        earlier: Whether the baseline is an earlier run, which needs no engine of this one.

    Raises:
        RequestError: It is not among the engines.
    """
    labels = [engine.label for engine in engines]
    if named is not None and table.baseline not in labels:
        known = [typed(label) for label in labels]
        raise RequestError(f"--baseline: '{named}' is not measured in this run", hint=nearest(typed(named), known))
    if table.fail_on_regression is not None and not earlier and table.baseline not in labels:
        raise RequestError(
            "--fail-on-regression: no baseline is measured in this run",
            hint="add --baseline fp32@onnxruntime with --all, or --baseline run.json",
        )
