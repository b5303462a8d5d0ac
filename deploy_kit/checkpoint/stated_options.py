"""What is said of a checkpoint beside its file, in the form that decides a result of the store."""

from pathlib import Path

from deploy_kit.base.errors import no_such_file
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint.formats.folders import files_beside
from deploy_kit.graph import adoption
from deploy_kit.recipe import SourceTable
from deploy_kit.records.artifacts import Preprocess


def stated_options(source: SourceTable) -> dict[str, object]:
    """Return all that a recipe says of its checkpoint except where it lies and how its images are prepared."""
    return source.model_dump(exclude={"checkpoint", "preprocess", "probe"}, exclude_defaults=True)


def sidecar_digests(checkpoint: Path) -> tuple[str, ...]:
    """Return the sha256 of each file beside a checkpoint that may say something of it."""
    return tuple(sha256_of(file) for file in files_beside(checkpoint))


def probe_digest(source: SourceTable) -> tuple[str, ...]:
    """Return the sha256 of the probe file; empty where no probe is given.

    Raises:
        InputError: The file does not exist.
    """
    if source.probe is None:
        return ()
    if not Path(source.probe).is_file():
        raise no_such_file(Path(source.probe), hint="check the path given to --probe")
    return (sha256_of(Path(source.probe)),)


def stated_preprocess(source: SourceTable) -> Preprocess | dict[str, object] | None:
    """Return the preprocessing that a recipe states, as it is part of the key of a result."""
    table = source.preprocess
    if table is None or table.sides is not None:
        return None if table is None else table.record()
    return table.model_dump(exclude_none=True)


def stated_of_graph(source: SourceTable) -> adoption.Stated:
    """Return what a recipe says of an ONNX file."""
    sized = source.preprocess is not None and source.preprocess.sides is not None
    shape = source.preprocess.record().shape if source.preprocess and sized else None
    return adoption.Stated(shape=shape, sides=source.input, output=source.output)
