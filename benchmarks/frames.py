"""From pixels in memory to the class: a float input behind numpy, OpenVINO's PrePostProcessor, pixels in the graph.

All three run the INT8 file of the same network; one image a run, in turns.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import child, page, race, ratios
from benchmarks.candidates import Candidate
from benchmarks.ours import PORTABLE
from benchmarks.page import NONE
from benchmarks.race import Plan
from benchmarks.records import Entry, Race
from benchmarks.subjects import CALIBRATION, Subject
from benchmarks.workshop import Made, Workshop
from deploy_kit import images
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

FLOATS, PIXELS, OPENVINO = "float input, numpy", "pixels in the graph", "PrePostProcessor"
_BASELINES = (FLOATS, OPENVINO)


def measure(subject: Subject, workshop: Workshop, plan: Plan) -> Race:
    """Make the INT8 file with either input, let OpenVINO put its own preprocessing in front of one, and race."""
    pixels = replace(subject.preprocess, input_pixels=True)
    floats = workshop.file(PORTABLE, subject, plan.calibration_images)
    whole = workshop.file(PORTABLE, replace(subject, preprocess=pixels), plan.calibration_images)
    built = _preprocessed(floats, subject.preprocess, workshop.folder)
    frames = _frames(pixels, workshop.folder)
    ways = [
        (f"{FLOATS}@ort", "onnxruntime", floats, subject.preprocess),
        (f"{PIXELS}@ort", "onnxruntime", whole, pixels),
        (f"{FLOATS}@ov", "openvino", floats, subject.preprocess),
        (f"{OPENVINO}@ov", "openvino", built, pixels),
        (f"{PIXELS}@ov", "openvino", whole, pixels),
    ]
    made = [
        Made(candidate=Candidate(name=name, file=PORTABLE, engine=engine), path=path, image=frames, taken=taken)
        for name, engine, path, taken in ways
    ]
    return race.of_files("Frame to class", subject, made, workshop.folder, plan)


def render(found: Race) -> str:
    """Show what a frame costs each way, and how pixels in the graph compare."""
    timed = {entry.name: entry for entry in found.entries if entry.samples_ms}
    rows = [
        (entry.name, f"{ratios.least_ms(entry.samples_ms):.2f}", *_ratios(entry, timed)) if entry.samples_ms
        else (entry.name, NONE, NONE, entry.why)
        for entry in found.entries
    ]  # fmt: skip
    how = (
        f"{found.subject}; batch {found.batch}; {found.threads} threads; {found.recompiles} processes × "
        f"{found.rounds} rounds × {found.runs} runs. A run begins with uint8 pixels in memory and ends with the class."
    )
    headings = ("way@engine", "ms (min, this run)", *(f"against {name}" for name in _BASELINES))
    return f"{how}\n\n{page.table(headings, rows)}"


def preprocess_with_openvino(source: str, target: str, preprocess: dict[str, object]) -> None:
    """Put OpenVINO's own preprocessing in front of a file that takes floats; called in a process of its own.

    Args:
        source: ONNX file with a float input (1, C, H, W).
        target: IR file to write, which takes uint8 (1, H, W, C).
        preprocess: How images become the input.
    """
    import openvino
    from openvino.preprocess import PrePostProcessor

    stated = codec.from_json(Preprocess, preprocess)
    steps = PrePostProcessor(openvino.Core().read_model(source))
    frames = steps.input()
    frames.tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    frames.model().set_layout(openvino.Layout("NCHW"))
    frames.preprocess().convert_element_type(openvino.Type.f32)
    frames.preprocess().mean([255 * value for value in stated.mean]).scale([255 * value for value in stated.std])
    openvino.save_model(steps.build(), target, compress_to_fp16=False)


def _preprocessed(source: Path, preprocess: Preprocess, folder: Path) -> Path:
    target = folder / "preprocessed.xml"
    ended = child.call(
        "frames:preprocess_with_openvino", source=str(source), target=str(target), preprocess=codec.to_json(preprocess)
    )
    if ended.why:
        sys.stderr.write(f"frames: {OPENVINO}: {ended.why}\n")
    return target


def _frames(preprocess: Preprocess, folder: Path) -> Path:
    used = images.open_set(CALIBRATION, preprocess).first(1)
    path = folder / f"frames-{preprocess.height}.npy"
    np.save(path, next(used.batches(preprocess, 1)))
    return path


def _ratios(entry: Entry, timed: dict[str, Entry]) -> tuple[str, ...]:
    """Compute the ratios of pixels in the graph against the other ways on the same engine."""
    way, _, engine = entry.name.rpartition("@")
    others = (timed.get(f"{name}@{engine}") for name in _BASELINES)
    return tuple(
        page.ratio(ratios.interval(other.samples_ms, entry.samples_ms)) if other and way == PIXELS else NONE
        for other in others
    )
