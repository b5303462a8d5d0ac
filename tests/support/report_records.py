"""What several tests of report share."""

import dataclasses
import math
import re
from typing import Any

from tiny_densenet import TINY_PREPROCESS, TINY_SPEC

from deploy_kit.records.artifacts import Artifact, CheckpointFacts, Proof, ReferenceLogits, TensorSpec
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.measurements import Environment, Measurement, NotRun, SpeedUp
from deploy_kit.records.results import EngineRow, Limits, ParityReport, PassRow, Report, StageTime

HERE = Environment(
    host="Linux 6.1 x86_64",
    cpu="A processor",
    isa=("avx2", "avx512_vnni"),
    cores=2,
    memory_gib=7.8,
    governor="",
    clock_mhz=2400.0,
    load=0.1,
    gpu="",
    virtual=True,
    versions=(("python", "3.11"), ("onnxruntime", "1.31")),
)


def artifact(name: str, engine: str | None = None, **changes: Any) -> Artifact:
    facts = {
        "kind": "engine" if engine else "onnx",
        "name": name,
        "path": f"build/{name}/model.onnx",
        "sha256": name.ljust(64, "0"),
        "size_bytes": 250_000,
        "precision": "int8",
        "inputs": (TensorSpec(name="input", dtype="float", shape=("N", 1, 16, 16)),),
        "outputs": (TensorSpec(name="logits", dtype="float", shape=("N", 4)),),
        "preprocess": TINY_PREPROCESS,
        "stage": "build" if engine else "quantize",
        "parent": "p" * 64,
        "engine": engine,
        "made_by": MadeBy(scheme="int8_ort"),
        "proof": Proof(source="the engine", counts=(("Conv", "int8", 9),)) if engine else None,
    }
    return Artifact(**facts | changes)


def parity(label: str, **changes: Any) -> ParityReport:
    facts = {
        "artifact": "a" * 64,
        "label": label,
        "n": 100,
        "images": "bundled:some",
        "sqnr_db": 31.4,
        "cosine": 0.999,
        "max_error": 0.25,
        "agreement": 0.97,
        "top1_reference": 0.93,
        "top1": 0.925,
        "drop_pp": 0.5,
        "drop_pp_interval": 0.7,
        "worst_images": (3, 1, 4),
        "limits": Limits(min_sqnr_db=20),
    }
    return ParityReport(**facts | changes)


def measurement(label: str, samples_ms: tuple[float, ...]) -> Measurement:
    return Measurement(
        artifact="a" * 64,
        label=label,
        batch=1,
        span="compute",
        samples_ms=samples_ms,
        rounds=(0,),
        warmup_runs=60,
        steady=False,
        settings=(("threads", "2"),),
        environment=HERE,
        when="2026-01-01T00:00:00+00:00",
    )


def row(name: str, engine: str, **changes: Any) -> EngineRow:
    label = f"{name} · {engine}"
    facts = {"label": label, "artifact": artifact(name, engine), "parity": parity(label)}
    return of_its_engine(EngineRow(**facts | changes))


def of_its_engine(one: EngineRow) -> EngineRow:
    """Let what was checked and measured be the row's engine, as in every report of a run."""
    parts = {"parity": one.parity, "measurement": one.measurement}
    digest = one.artifact.sha256 if one.artifact else ""
    own = {key: part for key, part in parts.items() if digest and isinstance(part, ParityReport | Measurement)}
    return dataclasses.replace(one, **{key: dataclasses.replace(part, artifact=digest) for key, part in own.items()})


def made(*rows: EngineRow, **changes: Any) -> Report:
    facts: dict[str, Any] = {
        "recipe": "some",
        "checkpoint": CheckpointFacts(
            name="some.pth",
            sha256="c" * 64,
            size_bytes=1000,
            container="torch zip",
            spec=TINY_SPEC,
            parameters=1234,
            remarks=("weights taken from 'state_dict'",),
        ),
        "answers": ReferenceLogits(
            path="answers/a.npz", sha256="b" * 64, images="bundled:some", n=100, labelled=True, top1=0.93
        ),
        "difference": 2e-7,
        "lineage": (artifact("int8"),),
        "passes": (
            PassRow(
                name="fold_batchnorm",
                fired=3,
                nodes_before=50,
                nodes_after=47,
                macs_before=10_000,
                macs_after=10_000,
                max_difference=1e-7,
                promise=1e-5,
                refused=(("the convolution feeds others too", 2),),
            ),
        ),
        "rows": rows,
        "environment": HERE,
        "times": (StageTime(stage="export", name="some.pth", seconds=1.5, reused=True),),
        "when": "2026-01-01T00:00:00+00:00",
        "version": "0.1.0",
    }
    return Report(**facts | changes)


def everything() -> Report:
    """Give a report with a row of every kind."""
    return made(
        row("fp32", "onnxruntime", parity=parity("fp32 · onnxruntime", sqnr_db=math.inf)),
        row(
            "int8",
            "onnxruntime",
            measurement=measurement("int8 · onnxruntime", tuple(1 + i / 1000 for i in range(1000))),
            speed_up=SpeedUp(ratio=1.52, low=1.4, high=1.6, baseline="fp32 · onnxruntime"),
        ),
        row("int8", "openvino", parity=parity("int8 · openvino", sqnr_db=10.0)),
        row(
            "fp16",
            "tensorrt_rtx",
            parity=NotRun(artifact="d" * 64, label="fp16 · tensorrt_rtx", why="no NVIDIA GPU on this machine"),
            measurement=NotRun(artifact="d" * 64, label="fp16 · tensorrt_rtx", why="no NVIDIA GPU on this machine"),
        ),
        EngineRow(label="bf16 · onnxruntime", artifact=None, failed="it has no bfloat16"),
        remarks=("this is a remark",),
    )


def tables(text: str) -> dict[str, list[list[str]]]:
    """Read the first table under each heading, as Markdown renders it: cells without their escapes."""
    found: dict[str, list[list[str]]] = {}
    heading = ""
    for line in text.split("\n"):
        if line.startswith("#"):
            heading = line.lstrip("# ")
        elif line.startswith("|"):
            cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            found.setdefault(heading, []).append(cells)
    return found
