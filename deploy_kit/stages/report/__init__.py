"""The record of one deployment as ``report.json``, and ``report.md`` as a view of it."""

import json
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.engine_table import HEADINGS, NONE, cells, marked, percentile, size, summary
from deploy_kit.records.measurements import Environment, Measurement
from deploy_kit.records.results import PassRow, Report
from deploy_kit.stages.report import accuracy, device, layer_breakdown, mixed_precision
from deploy_kit.stages.report.markdown import table
from deploy_kit.store import write_whole


def run(report: Report, folder: Path) -> Path:
    """Write ``report.json`` and ``report.md`` into `folder`, and return the path of the latter."""
    write_whole(folder / "report.json", json.dumps(codec.to_json(report), ensure_ascii=False, indent=1) + "\n")
    write_whole(folder / "report.md", markdown(report))
    return folder / "report.md"


def load_report(path: Path) -> Report:
    """Load a report from its ``report.json``.

    Raises:
        InputError: The file is missing, or not a report.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such report") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a report: {error}") from error
    return codec.from_json(Report, data, str(path))


def markdown(report: Report) -> str:
    """Return a report as Markdown."""
    verdict = summary(report).replace("is rejected.", "is **rejected**.").replace("is undecided.", "is **undecided**.")
    sections = (
        [f"# {report.recipe}: {report.checkpoint.title}", "", verdict, ""],
        ["## Engines", "", *table(HEADINGS, [cells(row) for row in report.rows]), "", *_legend(report), ""],
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
        f"{NONE} means not measured; p99 is given from 1,000 samples on."
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
    return ["## Export", "", *table(("what", "value"), rows), ""]


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
            "; ".join(f"{n}: {reason}" for reason, n in row.refused) or NONE,
        )
        for row in passes
    ]
    return ["## Simplify", "", *table(headings, rows), ""]


def _quantize(report: Report) -> list[str]:
    quantized = [artifact for artifact in report.lineage if artifact.stage == "quantize"]
    rows = [
        (a.name, a.precision, size(a.size_bytes), "; ".join(f"{k} {v}" for k, v in a.made_by.rows)) for a in quantized
    ]
    return ["## Quantize", "", *table(("variant", "precision", "size", "made by"), rows), ""] if rows else []


def _build(report: Report) -> list[str]:
    rows = []
    for row in report.rows:
        proof = row.artifact.proof if row.artifact else None
        if proof:
            counts = ", ".join(f"{n} {op} {dtype}" for op, dtype, n in proof.counts)
            where = layer_breakdown.where(proof)
            rows.append(
                (row.label, counts or NONE, where, proof.source + (f"; {proof.remark}" if proof.remark else ""))
            )
    headings = ("engine", "computes in", "runs on", "read from")
    return ["## Build: precision and place proved", "", *table(headings, rows), ""] if rows else []


def _bench(report: Report) -> list[str]:
    headings = ("engine", "batch", "scenario", "samples", "p50", "p90", "p99", "min", "images/s", "span", "warm-up",
        "settings")  # fmt: skip
    timed = [(row.label, row.measurement) for row in report.rows if isinstance(row.measurement, Measurement)]
    if not timed:
        return []
    note = "Engines took turns in an order drawn anew each round; every sample is kept in `report.json`."
    rows = [(label, *_bench_cells(measured)) for label, measured in timed]
    remarks = [f"- {label}: {remark}" for label, measured in timed for remark in notes(measured)]
    return ["## Bench", "", note, "", *table(headings, rows), "", *remarks, *([""] if remarks else [])]


def _bench_cells(m: Measurement) -> tuple[str, ...]:
    warm = f"{m.warmup_runs} runs, {'steady' if m.steady else 'NOT steady'}"
    times = (percentile(m, 50), percentile(m, 90), percentile(m, 99), marked(f"{min(m.samples_ms):.3f} ms", m))
    streams = f", {m.streams} streams" if m.streams > 1 else ""
    settings = ", ".join(f"{k} {v}" for k, v in m.settings)
    rate = marked(f"{m.images_per_s:.1f}", m) if m.qps else NONE
    return (str(m.batch), m.scenario + streams, str(len(m.samples_ms)), *times, rate, m.span, warm, settings)


def notes(measured: Measurement) -> tuple[str, ...]:
    """Return what a reader must know beside a latency: emulation, LoadGen's verdict, drift, and what went wrong."""
    test, resumed = measured.loadgen, ", ".join(str(number + 1) for number in measured.resumed_at)
    candidates = (
        measured.emulated and f"{measured.emulated} (by {measured.environment.emulated})",
        f"LoadGen {test.version}: {'VALID' if test.valid else 'INVALID'}. {test.sentence}" if test else "",
        f"not steady: {measured.drift}" if measured.drift else "",
        measured.stopped,
        f"taken up again at round {resumed}" if resumed else "",
        *(f"not valid: {why}" for why in measured.invalid),
    )
    return tuple(filter(None, candidates))


def _measured(report: Report) -> list[tuple[Artifact, Measurement]]:
    return [(r.artifact, r.measurement) for r in report.rows if r.artifact and isinstance(r.measurement, Measurement)]


def _load(report: Report) -> list[str]:
    measured = [(engine, timed) for engine, timed in _measured(report) if timed.cost]
    if not measured:
        return []
    note = (
        "Each engine was loaded once, in a fresh process; importing its package is not part of the load. Peak memory "
        "is host memory of that process when its warm-up ended."
    )
    return ["## Load", "", note, "", *table(*layer_breakdown.costs(measured)), ""]


def _layers(report: Report) -> list[str]:
    lines = []
    for _, measured in _measured(report):
        if measured.profile is not None:
            regions = table(*layer_breakdown.regions(measured.profile)) if measured.profile.layers else []
            sentence = layer_breakdown.sentence(measured, measured.profile)
            lines += ["", f"{sentence}.", *([""] if regions else []), *regions]
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
        "## Environment", "", *table(("what", "value"), rows), "",
        "## Time", "", *table(("stage", "what", "took", "result"), times), "",
    ]  # fmt: skip
