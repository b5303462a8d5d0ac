"""Engines as `deploy -o` delivers them: a file of a speaking name, and its passport."""

from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.whole_files import sha256_of
from deploy_kit.records.artifacts import Origin

if TYPE_CHECKING:
    from tiny_line import Line


def delivered(
    line: "Line",
    name: str,
    engine: str,
    folder: Path,
    *,
    images: str = "",
    digest: str = "",
    max_drop: float | None = None,
) -> Path:
    """Deliver one engine of the tiny line, checked on images of a name and a digest; return its main file."""
    folder.mkdir(exist_ok=True)
    built, checkpoint = line.built(name, engine), line.recipe.source.checkpoint
    origin = Origin(
        checkpoint=checkpoint,
        checkpoint_sha256=sha256_of(Path(checkpoint)),
        accuracy="accepted",
        images=images,
        n_images=1,
        images_sha256=digest,
        max_drop=max_drop,
    )
    return line.store.copy_out(built, folder / f"best-{name}{Path(built.path).suffix}", origin)
