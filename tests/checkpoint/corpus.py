"""Read every checkpoint of a corpus, export what can be, compare the ONNX file with the stored logits, print a table.

    python -m tests.checkpoint.corpus FOLDER --write docs/checkpoints.md

FOLDER holds ``good`` and ``bad``, each with a folder for each entry: ``meta.json``, the checkpoint, ``io.npz``.
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

from deploy_kit.base.errors import DeployKitError, RequestError
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSource
from deploy_kit.recipe import ExportTable, SourceTable
from deploy_kit.stages import export
from deploy_kit.store import Store

TOLERANCE = 1e-4
# Facts that the implementation's source states and the file does not.
STATED: dict[str, dict[str, Any]] = {
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
    """Outcome of one entry.

    Attributes:
        name: The entry.
        expected: What it is for.
        outcome: What happened.
        ok: Whether that is as expected.
    """

    name: str
    expected: str
    outcome: str
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
                    print(row(outcomes[-1]), "" if outcomes[-1].ok else "   <-- not as expected", flush=True)
    failed = [outcome.name for outcome in outcomes if not outcome.ok]
    print(
        f"\n{len(outcomes) - len(failed)} of {len(outcomes)} as expected"
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
        """Export one real layout: without flags first, then with what its source states."""
        status = meta["expected"]["status"]
        outcome, ok, difference = self._tried(entry, meta, {})
        needs = status.startswith("needs_flag") and "evidence" not in status
        if ok and needs and difference is not None:
            return Outcome(entry.name, status, f"{outcome}: exported although the file cannot say", False)
        if ok:
            must_refuse = status == "unsupported"
            return Outcome(entry.name, status, outcome, not must_refuse)
        if entry.name in STATED:
            again, ok, _ = self._tried(entry, meta, STATED[entry.name])
            flags = ", ".join(f"{key}: {value}" for key, value in STATED[entry.name].items())
            return Outcome(entry.name, status, f"{outcome}. With {flags}: {again}", ok)
        refusable = ("unsupported", "foreign", "refuse", "ok_or", "needs_safe")
        return Outcome(entry.name, status, outcome, any(word in status for word in refusable) and difference is None)

    def bad(self, entry: Path, meta: dict[str, Any]) -> Outcome:
        """Try to read one broken or hostile file: it must be refused for what it is, and nothing in it be run."""
        marker = Path(meta["marker"]) if "marker" in meta else None
        words = meta["expected"]["message_should_mention"]
        outcome, exported, _ = self._tried(entry, meta, {})
        missing = [part for part in words if part not in outcome]
        ran = marker is not None and marker.exists()
        note = " ITS CODE WAS RUN" if ran else ""
        return Outcome(entry.name, "refused: " + ", ".join(words), outcome + note, not (exported or missing or ran))

    def _tried(self, entry: Path, meta: dict[str, Any], stated: dict[str, Any]) -> tuple[str, bool, float | None]:
        """Export one file and compare; return the outcome, whether it went well, and the difference."""
        file = entry / meta["checkpoint"]
        arrays = np.load(entry / "io.npz") if (entry / "io.npz").is_file() else None
        sides = tuple(_first(arrays["input"], meta).shape[2:]) if arrays is not None else (64, 64)
        source = SourceTable(checkpoint=str(file), input=sides, **stated)
        table = ExportTable(tolerance=1e-5, exporter=self.exporter)
        try:
            exported, _ = export.run(
                source,
                table,
                Context(store=self.store, connection=self.connection),
                images=ImageSource(name="synthetic"),
            )
        except RequestError as error:
            text = str(error).replace(f"{file}: ", "").replace(str(file), file.name)
            return f"refused: {text}" + (f" ({error.hint})" if error.hint else ""), False, None
        except DeployKitError as error:
            return f"failed: {error}", False, float("inf")
        if arrays is None:
            return "exported", True, None
        difference = compared(self.store.path(exported.onnx), arrays, meta)
        return f"{exported.checkpoint.title}, {difference:.0e}", difference <= TOLERANCE, difference


def _first(x: np.ndarray, meta: dict[str, Any]) -> np.ndarray:
    """Return the input with channels first: Keras stores them last."""
    channels = meta["architecture"].get("in_channels", x.shape[1])
    last = x.shape[1] != channels and x.shape[-1] == channels
    return np.ascontiguousarray(np.moveaxis(x, -1, 1)) if last else x


def compared(file: Path, arrays: Any, meta: dict[str, Any]) -> float:
    """Run an ONNX file on the stored input; return the largest difference relative to the largest logit."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    outputs = np.concatenate([session.run(None, {"input": x[None]})[0] for x in _first(arrays["input"], meta)])
    if "logits" in arrays.files:
        expected = arrays["logits"]
    else:
        expected = arrays["output"]
        powers = np.exp(outputs - outputs.max(1, keepdims=True))
        outputs = powers / powers.sum(1, keepdims=True)
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def row(outcome: Outcome) -> str:
    """Format one line of the table."""
    cells = (outcome.name, outcome.expected.replace("_", " "), outcome.outcome)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def write(page: Path, outcomes: list[Outcome]) -> None:
    """Replace the table of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(_START)
    after = rest.partition(_END)[2]
    lines = ["| entry | expected | outcome |", "|---|---|---|", *map(row, outcomes)]
    page.write_text(f"{before}{_START}\n" + "\n".join(lines) + f"\n{_END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
