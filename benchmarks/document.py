"""The sections of a run on disk: ``benchmarks.json`` with every sample, and the pages that are views of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.modes import MODES
from benchmarks.records import Stamp
from deploy_kit.base.whole_files import write_whole
from deploy_kit.records import codec

_SPEED = """\
# Benchmarks: deploykit's files against stock tools

Written by `make bench` (`python -m benchmarks --help` for parts of it) from `benchmarks.json`, which holds every
sample.

- All candidates of a table are loaded in one process and take turns in an order drawn anew each round. The first run
  of a turn is discarded, the fastest of the rest is kept. Every repetition is a new process that loads every file
  anew, because a compiled instance can be slow as a whole.
- A ratio is the median over rounds of baseline / candidate, with its 95 % bootstrap interval; the bootstrap draws
  processes first and rounds within them second. Above 1 is faster than the baseline.
- Milliseconds are the least of one run on a machine whose speed wanders. They are no promise, and they cannot be
  compared between tables; ratios can.
- Stock files are made from `torch.onnx.export` as it is, with each tool's documented call. `static-…` is
  onnxruntime's `quantize_static` (Q/DQ, per channel, uint8 activations, int8 weights), `…-preprocessed` with its
  `quant_pre_process` before; `nncf…` is `nncf.quantize` on the model that OpenVINO converted, `…-mixed` its preset,
  `…-minmax` its MINMAX range estimator. `@ort` is ONNX Runtime, `@ov` OpenVINO with float parts in f32 unless the
  name says bf16, `@et` ExecuTorch's XNNPACK, `@ncnn` ncnn without its half precision.
- deploykit's int8 files are those that `quantize --int8` writes for the machine: on x64 without VNNI (neither
  `avx512_vnni` nor `avx_vnni` in the environment below a table) neighbouring weights are bounded, so that 16-bit sums
  do not saturate. Stock files are left as they are.
- A candidate without a number has its reason.
"""
_ACCURACY = """\
# Accuracy

Written by `make bench` (`python -m benchmarks --modes accuracy,calibration` for this page alone; with
`--checkpoint FILE --size 64` for a net of your own) from `benchmarks.json`.

- Every file is held against the checkpoint's own logits, computed by torch, on the same images; calibration images
  are never among them.
- Files and tools are those of [benchmarks.md](benchmarks.md). `@simulated` is a graph for TensorRT, computed node by
  node as it stands by ONNX Runtime without its optimizer: what a GPU would answer but for its own rounding. ONNX's
  reference evaluator gives the same answers on a sample, which the note states.
"""
_PAGES = {"benchmarks": _SPEED, "accuracy": _ACCURACY}


@dataclass(frozen=True, kw_only=True)
class Section:
    """One mode's result and its stamp."""

    mode: str
    stamp: Stamp
    result: Any


def read(folder: Path) -> dict[str, Section]:
    """Read the sections of an earlier run; none where there is no file."""
    path = folder / "benchmarks.json"
    if not path.is_file():
        return {}
    data = json.loads(path.read_text(encoding="utf-8"))
    return {
        mode: Section(
            mode=mode,
            stamp=codec.from_json(Stamp, entry["stamp"], f"{mode}.stamp"),
            result=codec.from_json(MODES[mode].record, entry["result"], mode),
        )
        for mode, entry in data.items()
    }


def write(folder: Path, sections: dict[str, Section]) -> None:
    """Write all files, sections in the order of the modes; a page without a section is left as it is."""
    ordered = [sections[mode] for mode in MODES if mode in sections]
    data = {
        section.mode: {"stamp": codec.to_json(section.stamp), "result": codec.to_json(section.result)}
        for section in ordered
    }
    write_whole(folder / "benchmarks.json", json.dumps(data, ensure_ascii=False) + "\n")
    for name, intro in _PAGES.items():
        mine = [section for section in ordered if MODES[section.mode].page == name]
        if mine:
            write_whole(folder / f"{name}.md", "\n".join([intro, *map(markdown, mine)]))


def markdown(section: Section) -> str:
    """Write one section."""
    mode = MODES[section.mode]
    return f"## {mode.title}\n\n{mode.render(section.result)}\n\n{page.stamp(section.stamp)}\n"
