"""A report that holds something for every picture of the page, from seeded numbers."""

import base64
import dataclasses
import io
import itertools
from typing import Any

import numpy as np
from layer_profiles import COST, PROFILE
from PIL import Image
from report_records import HERE, artifact, made, of_its_engine, parity

from deploy_kit.accuracy.paired import drop_of_counts
from deploy_kit.analysis.recommendation import recommend
from deploy_kit.measure.speed_ups import speed_up
from deploy_kit.records.difference import NetworkDifference, PointDifference
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.parity import ClassScore, Flip, Flips, Scores
from deploy_kit.records.readings import Conditions, QuantityCourse, Roof
from deploy_kit.records.recommendation import Budgets
from deploy_kit.records.results import EngineRow, Limits, ParityReport, Report, Thumbnail

_IMAGES = 10_000
CLASSES = ("coat", "pullover", "shirt", "bag")
ENGINES = {  # label → median ms, points lost
    "fp32 · onnxruntime": (3.1, 0.0),
    "fp32 · openvino": (2.4, 0.0),
    "fp16 · openvino": (1.9, 0.02),
    "int8 · onnxruntime": (1.3, 0.09),
    "int8 · openvino": (0.9, 0.31),
}
POINTS = (
    "conv0",
    "denseblock1.denselayer1",
    "denseblock1.denselayer2",
    "transition1",
    "denseblock2.denselayer1",
    "norm5",
)


def page_report(classes: tuple[str, ...] = CLASSES, file: str = "images/0001.png", **changes: Any) -> Report:
    """Give a report with all that the page can draw; names of classes and of a file come from outside."""
    rows = tuple(
        _row(label, ms, lost, number, classes, file) for number, (label, (ms, lost)) in enumerate(ENGINES.items())
    )
    facts: dict[str, Any] = {
        "answers": dataclasses.replace(made().answers, n=_IMAGES),
        "differences": (difference("int8"), difference("int8-mixed", better=6.0)),
        "thumbnails": (thumbnail(file),),
        "recommendation": recommend(rows, Budgets(latency_ms=4.0)),
    }
    return made(*rows, **facts | changes)


def difference(label: str, better: float = 0.0) -> NetworkDifference:
    points = tuple(
        PointDifference(point=name, sqnr_db=40.0 - 3 * place + better, expected_db=38.0 - 3 * place, max_error=0.01,
                        channel=0, channel_db=30.0, session=0, undisturbed_db=float("inf"))
        for place, name in enumerate(POINTS)
    )  # fmt: skip
    return NetworkDifference(
        first="checkpoint", second=label, computed_by=("torch", "onnxruntime"), n=16, images="some", points=points,
        unlike=(), part="", sign="", every_layer=True, verdict=f"{label} follows the checkpoint.",
    )  # fmt: skip


def thumbnail(name: str, image: int = 7) -> Thumbnail:
    file = io.BytesIO()
    Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save(file, "JPEG")
    return Thumbnail(image=image, name=name, data=base64.b64encode(file.getvalue()).decode())


def _row(label: str, ms: float, lost: float, number: int, classes: tuple[str, ...], file: str) -> EngineRow:
    name, _, engine = label.partition(" · ")
    precision = name if name in ("fp32", "fp16") else "int8"
    baseline, timed = next(iter(ENGINES)), _measurement(label, ms, number)
    found = EngineRow(
        label=label,
        artifact=artifact(name, engine, precision=precision, size_bytes=round(200_000 * ms)),
        parity=_parity(label, lost, classes, file),
        measurement=timed,
        speed_up=speed_up(_measurement(baseline, ENGINES[baseline][0], 0), timed) if number else None,
    )
    return of_its_engine(found)


def _parity(label: str, lost: float, classes: tuple[str, ...], file: str) -> ParityReport:
    scores = Scores(
        outputs="logits", measure="recall",
        classes=tuple(
            ClassScore(index=place, name=name, n=250, reference=0.93, found=0.93 - lost * (place - 1) / 20)
            for place, name in enumerate(classes)
        ),
        top5_reference=None, top5=None, ece_reference=0.01, ece=0.012, mean_reference=0.93, mean=0.93 - lost / 100,
    )  # fmt: skip
    flip = Flip(image=7, name=file, margin=1.25, reference=0, found=1, found_margin=0.5, label=0)
    won = 3 * (lost > 0)
    drop = drop_of_counts(won + round(lost / 100 * _IMAGES), won, _IMAGES, 0.3)
    changed = (drop.lost or 0) + won
    return parity(
        label, n=_IMAGES, agreement=1 - changed / _IMAGES, top1=0.93 - lost / 100, drop_pp=drop.points,
        drop_pp_interval=(drop.high - drop.low) / 2, limits=Limits(max_drop=0.3), drop=drop, scores=scores,
        flips=Flips(n=changed, close_margin=0.4, close=0, worst=(flip,) * (lost > 0)),
    )  # fmt: skip


def _measurement(label: str, ms: float, number: int) -> Measurement:
    samples = ms * (1 + np.random.default_rng(number).gamma(1.5, 0.02, 1200))
    starts = list(itertools.accumulate(samples, initial=20.0 * number))[:-1]
    bits = 8 if label.startswith("int8") else 32
    roof = Roof(
        device="A processor", processor="cpu", precision="int8" if bits == 8 else "fp32", basis="computed",
        source="2 cores", peak_ops_s=8e9 * 32 / bits, bandwidth_b_s=12e9, macs=2_000_000, moved_bytes=50_000 * bits,
    )  # fmt: skip
    courses = (
        QuantityCourse(
            what="clock of the fastest core", unit="MHz", before=2400, low=2350 + number, high=2900, after=2500
        ),
        QuantityCourse(what="hottest sensor", unit="°C", before=41, low=44 + number, high=63, after=58),
    )
    conditions = Conditions(
        settings=(("governor", "powersave"),), courses=courses, foreign=0.01, timed_s=2.0, unjudged=(), advice=(),
        own_cost=0.001,
    )  # fmt: skip
    return Measurement(
        artifact="a" * 64, label=label, batch=1, span="compute", samples_ms=tuple(map(float, samples)),
        rounds=tuple(range(0, 1200, 100)), warmup_runs=60, steady=True, settings=(("threads", "2"),), environment=HERE,
        when="2026-01-01T00:00:00+00:00", starts_ms=tuple(map(float, starts)), roof=roof, conditions=conditions,
        cost=COST, profile=PROFILE if label.startswith("int8") else None,
    )  # fmt: skip
