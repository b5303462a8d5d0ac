"""Load costs and layer times as headings and cells, which the command line and the report draw."""

from collections.abc import Iterable

from deploy_kit.records.artifacts import Artifact, Proof
from deploy_kit.records.engine_table import NONE, marked
from deploy_kit.records.layer_times import LayerProfile
from deploy_kit.records.measurements import Measurement

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]

COST_HEADINGS = ("engine", "build", "load", "first run", "p50", "peak memory", "runs on")


def costs(engines: Iterable[tuple[Artifact, Measurement]]) -> Table:
    """Lay out the cost of each engine before its first steady run, and where its nodes ran."""
    rows = list[tuple[str, ...]]()
    for engine, measured in engines:
        cost, label = measured.cost, marked(measured.label, measured)
        loaded = (_ms(cost.load_ms), _ms(cost.first_ms)) if cost else (NONE, NONE)
        memory = f"{cost.peak_memory_mib} MiB, {cost.memory_before_mib} before loading" if cost else NONE
        build = f"{engine.build_s:.1f} s" if engine.build_s else NONE
        rows.append((label, build, *loaded, _ms(measured.percentile_ms(50)), memory, where(engine.proof)))
    return COST_HEADINGS, rows


def where(proof: Proof | None) -> str:
    """Count the nodes of an engine on each device or provider."""
    places = proof.places if proof else {}
    return ", ".join(f"{place} ({n} nodes)" for place, n in places.items()) or NONE


def split(engine: Artifact) -> str:
    """Return a sentence if an engine's nodes are spread over several devices; empty if they are not."""
    places = list((engine.proof.places if engine.proof else {}).items())
    if len(places) < 2:
        return ""
    total, rest = sum(n for _, n in places), ", ".join(f"{n} on {place}" for place, n in places[1:])
    return (
        f"{engine.label}: {places[0][1]} of {total} nodes run on {places[0][0]}, {rest}: each change of device copies"
    )


def regions(profile: LayerProfile) -> Table:
    """Lay out a profile: a line per region, a column per kind of operation, each in median ms per run."""
    kinds = profile.kinds
    rows = list[tuple[str, ...]]()
    for region in profile.regions:
        inside = [layer for layer in profile.layers if layer.region == region]
        by_kind = [sum(layer.median_ms for layer in inside if layer.kind == kind) for kind in kinds]
        share = f"{profile.share(region=region):.1%}"
        rows.append((region, share, f"{sum(by_kind):.3f}", *(f"{ms:.3f}" if ms else NONE for ms in by_kind)))
    shares = (f"{profile.share(kind=kind):.1%}" for kind in kinds)
    rows.append(("all", "100.0%", f"{profile.total_ms:.3f}", *shares))
    return ("region", "share", "ms", *kinds), rows


def sentence(measured: Measurement, profile: LayerProfile) -> str:
    """Describe a profile, and how far it is from the latency that was measured without it."""
    if not profile.layers:
        return f"{measured.label}: no profile: {profile.remark}"
    latency = measured.percentile_ms(50)
    beside = f"; without profiling the median run took {_ms(latency)}" if latency is not None else ""
    times = f"layers {_ms(profile.total_ms)} by their medians, {_ms(profile.mean_total_ms)} by their means"
    return (
        f"{marked(measured.label, measured)}: {profile.source}, {profile.runs} runs of their own: {times}, of a "
        f"profiled run of {_ms(profile.run_ms)}{beside}; {profile.unknown:.1%} in layers whose place is not known"
    )


def _ms(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f} ms" if value < 100 else f"{value:.0f} ms"
