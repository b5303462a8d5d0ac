"""The record of one deployment as ``report.json``, and ``report.md`` as a view of it."""

import json
import math
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import Environment, Measurement, SpeedUp
from deploy_kit.records.results import EngineRow, ParityReport, PassRow, Report
from deploy_kit.stages.report import accuracy, device, layer_breakdown, mixed_precision
from deploy_kit.stages.report.markdown import NONE as _NONE
from deploy_kit.stages.report.markdown import table as _table
from deploy_kit.store import write_whole

HEADINGS = ("artifact", "size", "top-1", "drop", "agreement", "p50", "p99", "speed-up", "verdict")


def run(report: Report, folder: Path) -> Path:
    """Write ``report.json`` and ``report.md`` into `folder`; give the path of the latter."""
    write_whole(folder / "report.json", json.dumps(codec.to_json(report), ensure_ascii=False, indent=1) + "\n")
    write_whole(folder / "report.md", markdown(report))
    return folder / "report.md"


def load_report(path: Path) -> Report:
    """Read a ``report.json`` back.

    Raises:
        InputError: Missing, or not a report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such report") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a report: {error}") from error
    return codec.from_json(Report, data, str(path))


def cells(row: EngineRow) -> tuple[str, ...]:
    """Give one line of the table, a text for each heading."""
    artifact, parity, measured, faster = row.artifact, row.parity, row.measurement, row.speed_up
    checked = parity if isinstance(parity, ParityReport) else None
    timed = measured if isinstance(measured, Measurement) else None
    drop = _NONE
    if checked and checked.drop:
        drop = f"{checked.drop.points:+.2f} [{checked.drop.low:+.2f}, {checked.drop.high:+.2f}]"
    elif checked and checked.drop_pp is not None and checked.drop_pp_interval is not None:  # a report of before
        drop = f"{checked.drop_pp:+.2f} ± {checked.drop_pp_interval:.2f}"
    return (
        row.label,
        size(artifact.size_bytes) if artifact else _NONE,
        f"{100 * checked.top1:.2f} %" if checked and checked.top1 is not None else _NONE,
        drop,
        f"{100 * checked.agreement:.2f} %" if checked else _NONE,
        _judged(timed, 50),
        _judged(timed, 99),
        interval(faster) + (" (INVALID)" if timed and timed.invalid else "") if faster else _NONE,
        row.verdict + ("; latency INVALID" if timed and timed.invalid else ""),
    )


def interval(faster: SpeedUp) -> str:
    """Write a ratio with its interval, e.g. ``1.52× [1.40, 1.60]``; without one where rounds were too few."""
    if math.isinf(faster.high):
        return f"{faster.ratio:.2f}×"
    return f"{faster.ratio:.2f}× [{faster.low:.2f}, {faster.high:.2f}]"


def size(n_bytes: int) -> str:
    """Write a file size for people."""
    return f"{n_bytes / 1e6:.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


def markdown(report: Report) -> str:
    """Write a report as Markdown."""
    sections = (
        [f"# {report.recipe}: {report.checkpoint.title}", "", _summary(report), ""],
        ["## Engines", "", *_table(HEADINGS, [cells(row) for row in report.rows]), "", *_legend(report), ""],
        _export(report),
        _simplify(report.passes),
        _quantize(report),
        mixed_precision.sections(report.mixes, {graph.sha256: graph.name for graph in report.lineage}),
        _build(report),
        accuracy.section(report.rows),
        _bench(report),
        device.sections(report),
        _load(report),
        _layers(report),
        _environment(report),
    )
    return "\n".join(line for section in sections for line in section)


def _ms(measured: Measurement | None, percent: int) -> str:
    value = measured.percentile_ms(percent) if measured else None
    return _NONE if measured is None or value is None else _marked(f"{value:.3f} ms", measured)


def _marked(number: str, measured: Measurement) -> str:
    """Put beside a number what it is worth, where its machine was emulated."""
    return f"{number} ({measured.emulated})" if measured.emulated else number


def _judged(measured: Measurement | None, percent: int) -> str:
    text = _ms(measured, percent)
    return f"{text} (INVALID)" if measured and measured.invalid and text != _NONE else text


def _summary(report: Report) -> str:
    verdict = "Every engine that ran keeps its limits." if report.passed else "At least one engine is **rejected**."
    return f"{verdict} Made {report.when} by deploykit {report.version}."


def _legend(report: Report) -> list[str]:
    reference = report.answers.top1
    own = f"The checkpoint's own top-1 on these images is {100 * reference:.2f} %. " if reference is not None else ""
    baselines = dict.fromkeys(row.speed_up.baseline for row in report.rows if row.speed_up)
    against = f"Speed-up is against {', '.join(baselines)}: the median over rounds, with its 95 % interval. " * bool(
        baselines
    )
    text = (
        f"Checked on {report.answers.n} images ({report.answers.images}). {own}"
        "Drop is in percentage points of top-1, with the 95 % interval of the paired difference. "
        f"Agreement is the share of images with the checkpoint's top-1. {against}"
        f"{_NONE} means not measured; p99 is given from 1,000 samples on."
    )
    return [text, *(line for remark in report.remarks for line in ("", f"- {remark}"))]


def _export(report: Report) -> list[str]:
    facts = report.checkpoint
    rows = [
        ("checkpoint", facts.name),
        ("sha256", facts.sha256),
        ("container", facts.container),
        ("architecture", facts.title),
        ("parameters", f"{facts.parameters:,}"),
        ("difference of the ONNX file", f"{report.difference:.2g} of the largest logit"),
        *(("remark", remark) for remark in facts.remarks),
        *((f"{fact} from", source) for fact, source in (facts.spec.sources if facts.spec else ())),
    ]
    return ["## Export", "", *_table(("what", "value"), rows), ""]


def _simplify(passes: tuple[PassRow, ...]) -> list[str]:
    if not passes:
        return []
    headings = ("pass", "fired", "nodes", "MACs", "max difference", "promise", "refused")
    rows = [
        (
            row.name,
            str(row.fired),
            f"{row.nodes_before} → {row.nodes_after}",
            f"{row.macs_before:,} → {row.macs_after:,}",
            f"{row.max_difference:.2g}",
            f"{row.promise:g}",
            "; ".join(f"{n}: {reason}" for reason, n in row.refused) or _NONE,
        )
        for row in passes
    ]
    return ["## Simplify", "", *_table(headings, rows), ""]


def _quantize(report: Report) -> list[str]:
    typed = [artifact for artifact in report.lineage if artifact.stage == "quantize"]
    rows = [(a.name, a.precision, size(a.size_bytes), "; ".join(f"{k} {v}" for k, v in a.made_by.rows)) for a in typed]
    return ["## Quantize", "", *_table(("variant", "precision", "size", "made by"), rows), ""] if rows else []


def _build(report: Report) -> list[str]:
    rows = []
    for row in report.rows:
        proof = row.artifact.proof if row.artifact else None
        if proof:
            counts = ", ".join(f"{n} {op} {dtype}" for op, dtype, n in proof.counts)
            where = layer_breakdown.where(proof)
            rows.append(
                (row.label, counts or _NONE, where, proof.source + (f"; {proof.remark}" if proof.remark else ""))
            )
    headings = ("engine", "computes in", "runs on", "read from")
    return ["## Build: precision and place proved", "", *_table(headings, rows), ""] if rows else []


def _bench(report: Report) -> list[str]:
    headings = ("engine", "batch", "scenario", "samples", "p50", "p90", "p99", "min", "images/s", "span", "warm-up",
        "settings")  # fmt: skip
    timed = [(row.label, row.measurement) for row in report.rows if isinstance(row.measurement, Measurement)]
    if not timed:
        return []
    note = "Engines took turns in an order drawn anew each round; every sample is kept in `report.json`."
    rows = [(label, *_bench_cells(measured)) for label, measured in timed]
    remarks = [f"- {label}: {remark}" for label, measured in timed for remark in notes(measured)]
    return ["## Bench", "", note, "", *_table(headings, rows), "", *remarks, *([""] if remarks else [])]


def _bench_cells(m: Measurement) -> tuple[str, ...]:
    warm = f"{m.warmup_runs} runs, {'steady' if m.steady else 'NOT steady'}"
    times = (_ms(m, 50), _ms(m, 90), _ms(m, 99), _marked(f"{min(m.samples_ms):.3f} ms", m))
    streams = f", {m.streams} streams" if m.streams > 1 else ""
    settings = ", ".join(f"{k} {v}" for k, v in m.settings)
    rate = _marked(f"{m.images_per_s:.1f}", m) if m.qps else _NONE
    return (str(m.batch), m.scenario + streams, str(len(m.samples_ms)), *times, rate, m.span, warm, settings)


def notes(measured: Measurement) -> tuple[str, ...]:
    """Say what a reader must know beside a latency: whether it is one, LoadGen's word, drift, what went wrong."""
    said = measured.loadgen
    resumed = ", ".join(str(number + 1) for number in measured.resumed_at)
    return tuple(
        filter(
            None,
            (
                measured.emulated and f"{measured.emulated} (by {measured.environment.emulated})",
                f"LoadGen {said.version}: {'VALID' if said.valid else 'INVALID'}. {said.sentence}" if said else "",
                f"not steady: {measured.drift}" if measured.drift else "",
                measured.stopped,
                f"taken up again at round {resumed}" if resumed else "",
                *(f"not valid: {why}" for why in measured.invalid),
            ),
        )
    )


def _measured(report: Report) -> list[tuple[Artifact, Measurement]]:
    return [(r.artifact, r.measurement) for r in report.rows if r.artifact and isinstance(r.measurement, Measurement)]


def _load(report: Report) -> list[str]:
    measured = [(engine, found) for engine, found in _measured(report) if found.cost]
    if not measured:
        return []
    note = (
        "Each engine was loaded once, in a fresh process; importing its package is not part of the load. Peak memory "
        "is host memory of that process when its warm-up ended."
    )
    return ["## Load", "", note, "", *_table(*layer_breakdown.costs(measured)), ""]


def _layers(report: Report) -> list[str]:
    lines = []
    for _, measured in _measured(report):
        if measured.profile is not None:
            table = _table(*layer_breakdown.regions(measured.profile)) if measured.profile.layers else []
            lines += ["", layer_breakdown.sentence(measured, measured.profile) + ".", *([""] if table else []), *table]
    note = "Median ms a run by region of the network and kind of operation. Profiling slows a run: read the shares."
    return ["## Layers", "", note, *lines, ""] if lines else []


def _limits(here: Environment) -> str:
    parts = (
        f"{here.cpu_limit:g} processors" if here.cpu_limit else "",
        f"{here.memory_limit_gib:g} GiB" if here.memory_limit_gib else "",
    )
    return ", ".join(filter(None, parts)) or "none"


def _environment(report: Report) -> list[str]:
    here = report.environment
    rows = [
        ("machine", here.host + (" (virtual)" if here.virtual else "")),
        *([("emulated", f"by {here.emulated}")] if here.emulated else []),
        ("processor", f"{here.cpu}, {here.cores} cores; {', '.join(here.isa) or 'no known instruction sets'}"),
        ("memory", f"{here.memory_gib:g} GiB"),
        ("limits of the container", _limits(here)),
        ("clock", f"{here.clock_mhz:.0f} MHz, governor {here.governor or 'not readable'}, load {here.load:g}"),
        ("GPU", here.gpu or "none"),
        ("versions", ", ".join(f"{name} {text}" for name, text in here.versions)),
    ]
    times = [(t.stage, t.name, f"{t.seconds:.1f} s", "from the store" if t.reused else "made") for t in report.times]
    return [
        "## Environment", "", *_table(("what", "value"), rows), "",
        "## Time", "", *_table(("stage", "what", "took", "result"), times), "",
    ]  # fmt: skip
