"""How far from the machine's own limit: the INT8 matrix peak, measured in the same turns as the candidates.

    floor of the model = its multiply-accumulates / the rate of the fastest probe

A probe is a chain of 1×1 convolutions with uint8 activations and int8 weights: nothing but the products and their
requantization, on shapes large enough to hide the rest.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import page, race, ratios
from benchmarks.candidates import Candidate, Stock
from benchmarks.page import NONE
from benchmarks.race import Plan
from benchmarks.records import Entry, Race
from benchmarks.subjects import Subject
from benchmarks.workshop import Made, Workshop

_CHAIN = 8
_SHAPES = ((256, 56), (512, 28), (512, 56), (1024, 28))  # channels, side in px
_ENGINES = {"ort": "onnxruntime", "ov": "openvino"}


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """A race with probes in it.

    Attributes:
        race: Probes and candidates.
        probes: (name, multiply-accumulates of a run) of each probe.
        macs: The least multiply-accumulates that any candidate's graph needs for one image.
        macs_of: Which graph that is.
    """

    race: Race
    probes: tuple[tuple[str, int], ...]
    macs: int
    macs_of: str


def measure(subject: Subject, candidates: tuple[Candidate, ...], workshop: Workshop, plan: Plan) -> Roofline:
    """Race the candidates against the probes."""
    made = [workshop.make(candidate, subject, plan.calibration_images) for candidate in candidates]
    probes, macs = _probes(workshop.folder)
    needs = {candidate.name: workshop.macs(candidate, subject) for candidate in candidates}
    least = min(needs, key=lambda name: needs[name])
    found = race.of_files("Roofline", subject, [*probes, *made], workshop.folder, plan)
    return Roofline(race=found, probes=tuple(macs.items()), macs=needs[least], macs_of=least)


def render(found: Roofline) -> str:
    """Show the probes, and each candidate's share of the peak."""
    macs, entries = dict(found.probes), {entry.name: entry for entry in found.race.entries}
    probes = [entries[name] for name in macs if entries[name].samples_ms]
    if not probes:
        return "No probe ran."
    rates = {probe.name: 2e-6 * macs[probe.name] / ratios.least_ms(probe.samples_ms) for probe in probes}
    peak = entries[max(rates, key=lambda name: rates[name])]
    floor_ms = 2e-6 * found.macs / rates[peak.name]
    scale = found.macs / macs[peak.name]
    rows = [(name, f"{rate:.0f}") for name, rate in rates.items()]
    candidates = [_row(entry, peak, scale) for entry in entries.values() if entry.name not in macs]
    text = (
        f"The peak is {rates[peak.name]:.0f} GOP/s ({peak.name}); a multiply-accumulate is two operations. "
        f"{found.race.subject} needs {found.macs / 1e6:.0f} million multiply-accumulates at least (the graph of "
        f"{found.macs_of}), so its floor in this run is {floor_ms:.2f} ms. A share is the median over rounds of "
        "floor / candidate, both of the same round."
    )
    return "\n\n".join(
        (
            page.table(("probe", "GOP/s (max, this run)"), rows),
            text,
            page.table(("file@engine", "ms (min, this run)", "share of the peak", "note"), candidates),
        )
    )


def _row(entry: Entry, peak: Entry, scale: float) -> tuple[str, ...]:
    name = f"**{entry.name}**" if entry.ours else entry.name
    if not entry.samples_ms:
        return (name, NONE, NONE, entry.why)
    share, low, high = (100 * value for value in ratios.interval(peak.samples_ms, entry.samples_ms, scale=scale))
    return (name, f"{ratios.least_ms(entry.samples_ms):.2f}", f"{share:.0f} % [{low:.0f}, {high:.0f}]", "")


def _probes(folder: Path) -> tuple[list[Made], dict[str, int]]:
    made, macs = [], dict[str, int]()
    for channels, side in _SHAPES:
        path, image = folder / f"probe-{channels}x{side}.onnx", folder / f"probe-{channels}x{side}.npy"
        _write(path, channels, side)
        np.save(image, np.random.default_rng(0).integers(0, 256, (1, channels, side, side), np.uint8))
        for short, engine in _ENGINES.items():
            name = f"{_CHAIN} × conv1×1 {channels}→{channels} {side}×{side}@{short}"
            candidate = Candidate(name=name, file=Stock(recipe="probe"), engine=engine)
            made.append(Made(candidate=candidate, path=path, image=image))
            macs[name] = _CHAIN * channels * channels * side * side
    return made, macs


def _write(path: Path, channels: int, side: int) -> None:
    """Write a chain of 1×1 convolutions in Q/DQ form, uint8 from end to end."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    generator = np.random.default_rng(0)
    shape = [1, channels, side, side]
    constants = [
        numpy_helper.from_array(np.float32(0.02), "scale"),
        numpy_helper.from_array(np.uint8(128), "zero"),
        numpy_helper.from_array(np.full(channels, 0.01, np.float32), "weight_scale"),
    ]
    nodes, last = [], "input"
    for i in range(_CHAIN):
        weight = generator.integers(-127, 128, (channels, channels, 1, 1), np.int8)
        constants.append(numpy_helper.from_array(weight, f"w{i}"))
        out = "output" if i == _CHAIN - 1 else f"q{i}"
        nodes += [
            helper.make_node("DequantizeLinear", [last, "scale", "zero"], [f"x{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "weight_scale"], [f"wf{i}"], axis=0),
            helper.make_node("Conv", [f"x{i}", f"wf{i}"], [f"y{i}"]),
            helper.make_node("QuantizeLinear", [f"y{i}", "scale", "zero"], [out]),
        ]
        last = out
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("output", TensorProto.UINT8, shape)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
