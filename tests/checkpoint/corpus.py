"""Read every checkpoint of a corpus, export what can be, hold the ONNX file against the stored logits, print a table.

    python -m tests.checkpoint.corpus FOLDER --write docs/checkpoints.md

FOLDER has ``good`` and ``bad``, each with one folder an entry: ``meta.json``, the checkpoint, ``io.npz``.
"""

import argparse
import json
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from stage_inputs import images_of

from deploy_kit.base.errors import DeployKitError, RequestError
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.recipe import ExportTable, SourceTable
from deploy_kit.stages import export
from deploy_kit.store import Store

TOLERANCE = 1e-4
# What the implementation's source says and the file does not.
SAID: dict[str, dict[str, Any]] = {
    "xmuyzz_3d_stem_5x7x7": {"stem_stride": (1, 2, 2)},
    "tv_headless_features_base_prefix": {"head": "none"},
    "timm_blur_121d_ambiguous": {"stem_pool": "blur"},
    "reid_stale_classifier_no_final_relu": {
        "head": "classifier", "final_relu": False, "hidden_activation": "leaky_relu", "slope": 0.1,
    },
}  # fmt: skip
_START, _END = "<!-- table: start -->", "<!-- table: end -->"


@dataclass(frozen=True)
class Outcome:
    """What became of one entry."""

    name: str
    asked: str
    happened: str
    ok: bool


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    parser.add_argument("--only", default="", help="entries whose names contain this")
    parser.add_argument("--exporter", default="dynamo")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    onnxruntime.set_default_logger_severity(4)
    outcomes = []
    with links.connect_device(links.LOCAL) as connection, tempfile.TemporaryDirectory() as folder:
        line = Line(store=Store(Path(folder)), connection=connection, exporter=options.exporter)
        for kind, judge in (("good", line.good), ("bad", line.bad)):
            for entry in sorted((options.folder / kind).iterdir()):
                if options.only in entry.name:
                    outcomes.append(judge(entry, json.loads((entry / "meta.json").read_text(encoding="utf-8"))))
                    print(row(outcomes[-1]), "" if outcomes[-1].ok else "   <-- not as asked", flush=True)
    failed = [outcome.name for outcome in outcomes if not outcome.ok]
    print(
        f"\n{len(outcomes) - len(failed)} of {len(outcomes)} as asked"
        + (f"; not: {', '.join(failed)}" if failed else "")
    )
    if options.write and not options.only:
        write(options.write, outcomes)
    return 1 if failed else 0


@dataclass(frozen=True)
class Line:
    """Export and compare."""

    store: Store
    connection: Connection
    exporter: str

    def good(self, entry: Path, meta: dict[str, Any]) -> Outcome:
        """Export one real layout: without help first, then with what its source says."""
        status = meta["expected"]["status"]
        happened, ok, difference = self._tried(entry, meta, {})
        needs = status.startswith("needs_flag") and "evidence" not in status
        if ok and needs and difference is not None:
            return Outcome(entry.name, status, f"{happened}: exported although the file cannot say", False)
        if ok:
            must_refuse = status == "unsupported"
            return Outcome(entry.name, status, happened, not must_refuse)
        if entry.name in SAID:
            again, ok, _ = self._tried(entry, meta, SAID[entry.name])
            flags = ", ".join(f"{key}: {value}" for key, value in SAID[entry.name].items())
            return Outcome(entry.name, status, f"{happened}. With {flags}: {again}", ok)
        refusable = ("unsupported", "foreign", "refuse", "ok_or", "needs_safe")
        return Outcome(entry.name, status, happened, any(word in status for word in refusable) and difference is None)

    def bad(self, entry: Path, meta: dict[str, Any]) -> Outcome:
        """Try to read one broken or hostile file: it must be refused for what it is, and nothing of it be run."""
        marker = Path(meta["marker"]) if "marker" in meta else None
        wanted = meta["expected"]["message_should_mention"]
        happened, exported, _ = self._tried(entry, meta, {})
        missing = [words for words in wanted if words not in happened]
        ran = marker is not None and marker.exists()
        note = " ITS CODE WAS RUN" if ran else ""
        return Outcome(entry.name, "refused: " + ", ".join(wanted), happened + note, not (exported or missing or ran))

    def _tried(self, entry: Path, meta: dict[str, Any], said: dict[str, Any]) -> tuple[str, bool, float | None]:
        """Export one file and compare; also give whether it went well and the difference found."""
        file = entry / meta["checkpoint"]
        arrays = np.load(entry / "io.npz") if (entry / "io.npz").is_file() else None
        sides = tuple(_first(arrays["input"], meta).shape[2:]) if arrays is not None else (64, 64)
        source = SourceTable(checkpoint=str(file), input=sides, **said)
        part = ExportTable(tolerance=1e-5, exporter=self.exporter)
        try:
            made, _ = export.run(
                source, part, Context(store=self.store, connection=self.connection), images=images_of("synthetic")
            )
        except RequestError as error:
            text = str(error).replace(f"{file}: ", "").replace(str(file), file.name)
            return f"refused: {text}" + (f" ({error.hint})" if error.hint else ""), False, None
        except DeployKitError as error:
            return f"failed: {error}", False, float("inf")
        if arrays is None:
            return "exported", True, None
        difference = compared(self.store.path(made.onnx), arrays, meta)
        return f"{made.checkpoint.title}, {difference:.0e}", difference <= TOLERANCE, difference


def _first(x: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """Give the input with channels first: Keras stores them last."""
    channels = meta["architecture"].get("in_channels", x.shape[1])
    last = x.shape[1] != channels and x.shape[-1] == channels
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if last else x


def compared(file: Path, arrays: Any, meta: dict[str, Any]) -> float:
    """Run an ONNX file on the stored input; relative to the largest logit."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"input": x[None]})[0] for x in _first(arrays["input"], meta)])
    if "logits" in arrays.files:
        wanted = arrays["logits"]
    else:
        wanted = arrays["output"]
        powers = np.exp(found - found.max(1, keepdims=True))
        found = powers / powers.sum(1, keepdims=True)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def row(outcome: Outcome) -> str:
    """Give one line of the table."""
    cells = (outcome.name, outcome.asked.replace("_", " "), outcome.happened)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def write(page: Path, outcomes: list[Outcome]) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_START)
    after = rest.partition(_END)[2]
    lines = ["| entry | what it is for | what happened |", "|---|---|---|", *map(row, outcomes)]
    page.write_text(f"{before}{_START}\n" + "\n".join(lines) + f"\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
