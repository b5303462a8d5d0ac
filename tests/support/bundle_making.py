"""Bundles as tests pack and spoil them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from stage_inputs import run_of

from deploy_kit import pipeline
from deploy_kit.delivery import manifest, writer
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import check
from deploy_kit.stages.pack import PackTable

if TYPE_CHECKING:
    from tiny_line import Line


def pack(line: "Line", variant: str, engine: str, out: Path, **table: object) -> Path:
    """Check one engine of the tiny line and pack it."""
    run = run_of(line.recipe, line.store, line.connection)
    built = line.built(variant, engine)
    parity, _ = check.run(built, line.recipe.check, run.target, reference=line.answers, images=line.check_images)
    assert isinstance(parity, ParityReport)
    pipeline.packed(run, line.exported, built, parity, PackTable(out=out, allow_undecided=True, **table))  # type: ignore[arg-type]
    return out


def reseal(bundle: Path) -> None:
    """Write the manifest's files anew, as who wants to pass a changed file for the packed one."""
    listed = [vars(file) for file in writer._listed(bundle) if file.path != "manifest.json"]
    edit_manifest(bundle, lambda m: m.update(files=listed))


def edit_manifest(bundle: Path, change: Callable[[dict], object]) -> None:  # type: ignore[type-arg]
    """Change the manifest of a bundle and its hash, as somebody would who wants to do harm."""
    data = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    change(data)
    data["sha256"] = manifest._hash_of(data)
    (bundle / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
