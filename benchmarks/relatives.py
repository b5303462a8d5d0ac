"""DenseNet's relatives in timm: INT8 files beside stock tools', signal to noise and milliseconds of the same files.

Weights are seeded and BatchNorm statistics those of real images, so that SQNR is about ranges and not about training.
"""

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import child, page, race, races, subjects
from benchmarks.candidates import Candidate, Unavailable
from benchmarks.page import NONE
from benchmarks.race import Plan
from benchmarks.records import Race
from benchmarks.subjects import CALIBRATION, TEST, Subject
from benchmarks.workshop import Workshop
from deploy_kit import images
from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import StageError
from deploy_kit.devices import inference
from deploy_kit.recipe import SourceTable

NETWORKS = {
    "RDNet": "rdnet_tiny",
    "VoVNet-v2": "ese_vovnet39b",
    "DPN": "dpn68",
    "CSP-ResNet": "cspresnet50",
    "BlurDenseNet": "densenetblur121d",
}
"""Name in timm of each relative: their features are concatenated, and none is a plain DenseNet."""

FILES = ("raw@ort", "static-minmax@ort", "int8@ort", "raw@ov", "nncf@ov", "int8@ov")
SIZE, N = 128, 32
_HEADINGS = ("network", "file@engine", "by", "SQNR", "ms (min, this run)", "vs stock INT8", "vs float32", "note")
_IMPLEMENTATIONS = Path(sys.prefix) / "implementations"
_VERSION = "1"


@dataclass(frozen=True, kw_only=True)
class Relative:
    """One network.

    Attributes:
        race: Its files in turns.
        sqnr_db: (file@engine, dB of its outputs against ``raw@ort``) of those that ran.
    """

    race: Race
    sqnr_db: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Relatives:
    """The networks of the section."""

    nets: tuple[Relative, ...]


def measure(candidates: tuple[Candidate, ...], workshop: Workshop, plan: Plan, names: tuple[str, ...]) -> Relatives:
    """Measure networks by their names in `NETWORKS`; needs timm, as the tests of other people's DenseNets do.

    Raises:
        StageError: A network could not be exported.
    """
    return Relatives(nets=tuple(_measured(name, candidates, workshop, plan) for name in names))


def write(name: str, path: str) -> None:
    """Draw a network of timm, settle its statistics on real images, and export it as torch's documentation says."""
    import torch

    sys.path.append(str(_IMPLEMENTATIONS))
    library: Any = torch.library.Library  # not typed
    known = library("torchvision", "DEF")  # timm wants these operators to be there, and calls none
    for operator in ("nms", "qnms"):
        known.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise Unavailable("timm is not installed: see tests/checkpoint/implementations.txt") from error

    torch.manual_seed(0)
    model = timm.create_model(name, pretrained=False)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):  # a layer scale of 1e-6 would hide every branch
            torch.nn.init.ones_(parameter)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
            module.momentum = 1.0
    what = subjects.imagenet(SIZE).record()
    sample = torch.from_numpy(next(images.open_set(CALIBRATION, what).first(N).batches(what, N)))
    with torch.no_grad():
        model.train()(sample)
    torch.onnx.export(
        model.eval(), (sample[:1],), path, dynamo=True, external_data=False, input_names=["input"],
        output_names=["logits"],
    )  # fmt: skip


def render(found: Relatives) -> str:
    """Show all networks in one table."""
    rows = []
    for net in found.nets:
        noise = dict(net.sqnr_db)
        for entry in net.race.entries:
            name, by, _, ms, stock, floats, _, note = races.row(net.race, entry)
            sqnr = f"{noise[entry.name]:.1f} dB" if entry.name in noise and entry.int8 else NONE
            rows.append((net.race.title, name, by, sqnr, ms, stock, floats, note))
    how = races.how(found.nets[0].race) if found.nets else ""
    text = f"SQNR is that of the outputs on {N} test images, against the float32 file on ONNX Runtime."
    return f"{how.partition('; ')[2]} {text}\n\n{page.table(_HEADINGS, rows)}"


def _measured(title: str, candidates: tuple[Candidate, ...], workshop: Workshop, plan: Plan) -> Relative:
    subject = _subject(title, workshop)
    made = [workshop.make(candidate, subject, plan.calibration_images) for candidate in candidates]
    found = {}
    for one in made:
        if one.path is not None:
            found[one.candidate.name] = _outputs(one.candidate, one.path, subject, workshop)
    wanted = found["raw@ort"]
    assert wanted is not None
    noise = tuple((name, metrics.sqnr_db(wanted, it)) for name, it in found.items() if it is not None)
    return Relative(race=race.of_files(title, subject, made, workshop.folder, plan), sqnr_db=noise)


def _subject(title: str, workshop: Workshop) -> Subject:
    name, table = NETWORKS[title], subjects.imagenet(SIZE)
    path = workshop.folder / f"{name}-{SIZE}px-v{_VERSION}.onnx"
    if not path.is_file():
        aside = path.with_suffix(".part.onnx")
        ended = child.call("relatives:write", name=name, path=str(aside))
        if ended.why:
            raise StageError(f"{name} {ended.why}")
        aside.rename(path)
    source = SourceTable(checkpoint=str(path), preprocess=table)
    return Subject(name=f"{name}, seeded weights, {SIZE}×{SIZE} px", source=source, preprocess=table.record())


def _outputs(candidate: Candidate, path: Path, subject: Subject, workshop: Workshop) -> np.ndarray | None:
    """Compute the outputs (N, …) on test images; None where the engine cannot, which the race says."""
    sample = images.open_set(TEST, subject.preprocess).first(N)
    target = inference.InferenceTarget(engine=candidate.engine, path=path, options=candidate.options)
    try:
        return inference.infer_all(workshop.connection, target, sample, subject.preprocess).logits
    except StageError:
        return None
