"""The report's sections on the machine while it was timed: conditions, energy, roofline."""

from collections.abc import Sequence

from deploy_kit.records.engine_table import NONE
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.readings import Conditions, QuantityCourse, Rail
from deploy_kit.records.results import Report
from deploy_kit.stages.report.document import Section, Table

_Timed = list[tuple[str, Measurement]]


def sections(report: Report) -> list[Section]:
    """Return the sections on conditions, energy and roofline, as far as they were recorded."""
    timed = [(row.label, row.measurement) for row in report.rows if isinstance(row.measurement, Measurement)]
    return [part for part in (_conditions(timed), _energy(timed), _roofline(timed)) if not part.empty]


def share(measured: Measurement) -> str:
    """Describe how much of its roof an engine reaches, e.g. ``41 % of the int8 roof``; empty where it is not known."""
    median = measured.percentile_ms(50)
    if measured.roof is None or median is None:
        return ""
    mark = " (INVALID)" if measured.invalid else ""
    return f"{100 * measured.roof.share(median):.0f} % of the {measured.roof.precision} roof{mark}"


def notes(measured: Measurement) -> tuple[str, ...]:
    """Return a line on the share of the roof, and one on the energy of an inference for each rail."""
    reached, rails = share(measured), measured.energy.rails if measured.energy else ()
    roof = f"{reached} (an estimate, bound by {measured.roof.bound_by})" if reached and measured.roof else ""
    costs = (f"{rail.mj_per_inference:.3g} mJ per inference above idle, {rail.name} ({rail.gauge})" for rail in rails)
    return tuple(filter(None, (roof, *costs)))


def lacks(measured: Sequence[Measurement], *, energy: bool) -> tuple[str, ...]:
    """List what was not measured or not judged, once each; energy only where it was asked for."""
    energies = [f"energy {m.energy.why}" for m in measured if energy and m.energy and m.energy.why]
    unjudged = [f"not judged: {reason}" for m in measured if m.conditions for reason in m.conditions.unjudged]
    return tuple(dict.fromkeys((*energies, *unjudged)))


def _conditions(timed: _Timed) -> Section:
    known = [(label, m, m.conditions) for label, m in timed if m.conditions is not None]
    if not known:
        return Section(title="Conditions", blocks=())
    headings = ("engine", "verdict", "timed", "clock", "hottest", "load average", "foreign load", "not judged")
    rows = [
        (
            label,
            "**INVALID**: " + "; ".join(m.invalid) if m.invalid else "valid",
            f"{c.timed_s:.1f} s",
            _course(c, "clock of the fastest core") if _course(c, "clock of the GPU") == NONE else _clocks(c),
            _course(c, "hottest sensor"),
            _course(c, "load average"),
            NONE if c.foreign is None else f"{100 * c.foreign:.1f} %",
            "; ".join(c.unjudged) or NONE,
        )
        for label, m, c in known
    ]
    first = known[0][2]
    settings = ", ".join(f"{name} {value}" for name, value in first.settings) or "none readable"
    advice = dict.fromkeys(command for _, _, c in known for command in c.advice)
    text = (
        f"Before → lowest to highest within turns → after. Settings: {settings}. "
        f"Reading the gauges took {100 * first.own_cost:.2f} % of one core."
    )
    commands = f"An administrator may steady it: `{'`, `'.join(advice)}`. Nothing was changed." if advice else ""
    return Section(title="Conditions", blocks=(text, Table(headings=headings, rows=rows), commands))


def _course(conditions: Conditions, gauge: str) -> str:
    course = next((one for one in conditions.courses if one.what == gauge), None)
    return _words(course) if course else NONE


def _clocks(conditions: Conditions) -> str:
    cpu, gpu = (_course(conditions, f"clock of the {part}") for part in ("fastest core", "GPU"))
    return f"CPU {cpu}, GPU {gpu}"


def _words(course: QuantityCourse) -> str:
    digits = 0 if course.unit == "MHz" else 2 if not course.unit else 1
    before, low, high, after = (
        f"{value:.{digits}f}" for value in (course.before, course.low, course.high, course.after)
    )
    return f"{before} → {low} to {high} → {after} {course.unit}".rstrip()


def _energy(timed: _Timed) -> Section:
    known = [(label, m.energy) for label, m in timed if m.energy is not None]
    headings = ("engine", "rail", "mJ per inference", "inferences per joule", "mean power", "idle", "read")
    rows = [(label, *_rail(rail)) for label, energy in known for rail in energy.rails]
    reasons = dict.fromkeys(energy.why for _, energy in known if energy.why)
    text = (
        "Above idle: the power before the first engine was loaded is subtracted. Inferences per joule are images a "
        "second per watt. Rails overlap and are not added up."
    )
    body = (text, Table(headings=headings, rows=rows)) if rows else ()
    return Section(title="Energy", blocks=(*body, *(f"{why[0].upper()}{why[1:]}." for why in reasons)))


def _rail(rail: Rail) -> tuple[str, ...]:
    rate = rail.inferences_per_joule
    return (
        f"{rail.name} ({rail.gauge})",
        f"{rail.mj_per_inference:.3g}",
        NONE if rate is None else f"{rate:.3g}",
        f"{rail.joules / rail.seconds:.2f} W",
        f"{rail.idle_w:.2f} W",
        f"{rail.seconds:.1f} s at {rail.rate_hz:.1f} Hz",
    )


def _roofline(timed: _Timed) -> Section:
    known = [(label, m, m.roof) for label, m in timed if m.roof is not None]
    if not known:
        return Section(title="Roofline", blocks=())
    headings = ("engine", "share of the roof", "p50", "products", "bytes", "bound by", "basis")
    rows = []
    for label, m, roof in known:
        median = m.percentile_ms(50)
        rows.append(
            (
                label,
                share(m) or NONE,
                NONE if median is None else f"{median:.3f} ms",
                f"{roof.compute_ms:.3f} ms ({roof.macs / 1e6:.1f} M multiply-accumulates, {_rate(roof.peak_ops_s)})",
                f"{roof.memory_ms:.3f} ms ({roof.moved_bytes / 1e6:.2f} MB at {roof.bandwidth_b_s / 1e9:.1f} GB/s)",
                roof.bound_by,
                f"{roof.basis}: {roof.source}",
            )
        )
    text = (
        f"An estimate of the least time that {known[0][2].device} could need: the greater of the time for the products "
        "and the time for the bytes, weights and maps moved once. Caches save bytes, so a share can pass 100 %."
    )
    return Section(title="Roofline", blocks=(text, Table(headings=headings, rows=rows)))


def _rate(ops_s: float) -> str:
    return f"{ops_s / 1e12:.2f} TOP/s" if ops_s >= 1e12 else f"{ops_s / 1e9:.0f} GOP/s"
