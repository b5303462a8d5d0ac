"""What stands in a report, section by section: the same for every way to draw it."""

from collections.abc import Sequence

from deploy_kit.records import first_page
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.engine_table import HEADINGS, NONE, cells, marked, percentile, size
from deploy_kit.records.measurements import Environment, Measurement
from deploy_kit.records.results import ParityReport, PassRow, Report
from deploy_kit.stages.report import accuracy, device, layer_breakdown, mixed_precision, slimming
from deploy_kit.stages.report.document import Section, Table


def title(report: Report) -> str:
    """Return the report's heading."""
    return f"{report.recipe}: {report.checkpoint.title}"


def sections(report: Report) -> list[Section]:
    """Return every section that has something to show, those of the first page first."""
    engines = Table(headings=HEADINGS, rows=[cells(row) for row in report.rows])
    files = Table(headings=first_page.FILE_HEADINGS, rows=first_page.files(report))
    found = (
        Section(title="Engines", blocks=(engines, legend(report), report.remarks)),
        recommendation(report),
        Section(title="Files", blocks=(files,) if files.rows else ()),
        *details(report),
    )
    return [part for part in found if not part.empty]


def recommendation(report: Report) -> Section:
    """Return which engine to deploy, and for each other one why not; empty where the report does not say."""
    found = report.recommendation
    if found is None:
        return Section(title="Recommendation", blocks=())
    budgets = f" within {', '.join(found.budgets.words)}" if found.budgets.words else ""
    words = f"**{found.winner}**{budgets}: {found.why}" if found.winner else f"None{budgets}: {found.why}"
    rows = [(one.label, one.why) for one in found.losers]
    losers = (Table(headings=("not recommended", "why"), rows=rows),) if rows else ()
    return Section(title="Recommendation", blocks=(f"{words}.", *losers))


def details(report: Report) -> list[Section]:
    """Return the sections behind the first page."""
    found = (
        _export(report),
        _simplify(report.passes),
        *slimming.sections(report.slim_searches, report.slimmed),
        _quantize(report),
        *mixed_precision.sections(report.mixes, {graph.sha256: graph.name for graph in report.lineage}),
        _build(report),
        accuracy.section(report.rows),
        _bench(report),
        *device.sections(report),
        _load(report),
        _layers(report),
        *_environment(report),
    )
    return [part for part in found if not part.empty]


def legend(report: Report) -> str:
    """Say what the numbers of the engines' table are."""
    reference = report.answers.top1
    own = f"The checkpoint's own top-1 on these images is {100 * reference:.2f} %. " if reference is not None else ""
    baselines = dict.fromkeys(row.speed_up.baseline for row in report.rows if row.speed_up)
    against = f"Speed-up is against {', '.join(baselines)}: the median over rounds, with its 95 % interval. " * bool(
        baselines
    )
    return (
        f"Checked on {report.answers.n:,} images ({report.answers.images}). {own}"
        f"{_sampled(report)}{_measures(report)} {against}"
        f"{NONE} means not measured; p99 is given from 1,000 samples on."
    )


def _sampled(report: Report) -> str:
    """Name the engines that computed a part of the images, whose other classes follow from it."""
    parts = [
        f"{row.label} computed {row.parity.sample.n:,} of them"
        for row in report.rows
        if isinstance(row.parity, ParityReport) and row.parity.sample
    ]
    return f"{', '.join(parts)}: the other classes follow from these (see Check). " if parts else ""


def _measures(report: Report) -> str:
    """Say what drop and agreement are in this task."""
    found = next(
        (row.parity.task for row in report.rows if isinstance(row.parity, ParityReport) and row.parity.task), None
    )
    measure, agreement = ("top-1", "the share of images with the checkpoint's top-1")
    if found is not None:
        measure, agreement = found.measure, f"{found.agreement_name} with the checkpoint"
    return (
        f"Drop is in percentage points of {measure}, with the 95 % interval of the paired difference, whose upper "
        f"end a limit judges. Agreement is {agreement}."
    )


def _export(report: Report) -> Section:
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
    return Section(title="Export", blocks=(Table(headings=("what", "value"), rows=rows),))


def _simplify(passes: tuple[PassRow, ...]) -> Section:
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
    return _tabled("Simplify", headings, rows)


def _quantize(report: Report) -> Section:
    quantized = [artifact for artifact in report.lineage if artifact.stage == "quantize"]
    rows = [
        (a.name, a.precision, size(a.size_bytes), "; ".join(f"{k} {v}" for k, v in a.made_by.rows)) for a in quantized
    ]
    return _tabled("Quantize", ("variant", "precision", "size", "made by"), rows)


def _build(report: Report) -> Section:
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
    return _tabled("Build: precision and place proved", headings, rows)


def _bench(report: Report) -> Section:
    headings = ("engine", "batch", "scenario", "samples", "p50", "p90", "p99", "min", "images/s", "span", "warm-up",
        "settings")  # fmt: skip
    timed = [(row.label, row.measurement) for row in report.rows if isinstance(row.measurement, Measurement)]
    note = "Engines took turns in an order drawn anew each round; every sample is kept in `report.json`."
    rows = [(label, *_bench_cells(measured)) for label, measured in timed]
    remarks = tuple(f"{label}: {remark}" for label, measured in timed for remark in notes(measured))
    return _tabled("Bench", headings, rows, note, remarks)


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


def _load(report: Report) -> Section:
    measured = [(engine, timed) for engine, timed in _measured(report) if timed.cost]
    note = (
        "Each engine was loaded once, in a fresh process; importing its package is not part of the load. Peak memory "
        "is host memory of that process when its warm-up ended."
    )
    return _tabled("Load", *layer_breakdown.costs(measured), note)


def _layers(report: Report) -> Section:
    blocks = list[str | Table]()
    for _, measured in _measured(report):
        if measured.profile is not None:
            blocks.append(f"{layer_breakdown.sentence(measured, measured.profile)}.")
            if measured.profile.layers:
                headings, rows = layer_breakdown.regions(measured.profile)
                blocks.append(Table(headings=headings, rows=rows))
    note = "Median ms a run by region of the network and kind of operation. Profiling slows a run: read the shares."
    return Section(title="Layers", blocks=(note, *blocks) if blocks else ())


def _limits(here: Environment) -> str:
    parts = (
        f"{here.cpu_limit:g} processors" if here.cpu_limit else "",
        f"{here.memory_limit_gib:g} GiB" if here.memory_limit_gib else "",
    )
    return ", ".join(filter(None, parts)) or "none"


def _environment(report: Report) -> tuple[Section, Section]:
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
    return _tabled("Environment", ("what", "value"), rows), _tabled("Time", ("stage", "what", "took", "result"), times)


def _tabled(
    title: str,
    headings: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    note: str = "",
    remarks: tuple[str, ...] = (),
) -> Section:
    """Return a section of one table, with a sentence above it and remarks below; an empty one without rows."""
    return Section(title=title, blocks=(note, Table(headings=headings, rows=rows), remarks) if rows else ())
