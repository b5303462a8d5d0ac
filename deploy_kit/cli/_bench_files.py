"""``bench FILE…``: delivered and foreign files, taken into the store as engines and measured against each other."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy_kit import recipe
from deploy_kit.base.errors import RequestError, no_such_file
from deploy_kit.cli._console import Console
from deploy_kit.cli._options import StepOptions
from deploy_kit.context import Context
from deploy_kit.delivery import contents
from deploy_kit.devices import links
from deploy_kit.pipeline import Run
from deploy_kit.recipe import BenchTable, BuildEntry, overrides
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.passports import mismatch
from deploy_kit.stages import adopt
from deploy_kit.store import Store


@contextlib.contextmanager
def opened(step: StepOptions, console: Console) -> Iterator[Run]:
    """Open store and device for files alone: no recipe in force is read or changed."""
    device = links.find_device(step.device)
    with links.connect_device(links.LOCAL) as here, links.connect_device(device) as there:
        host = Context(store=Store(step.store), connection=here, on_progress=console.on_progress)
        base = recipe.load_recipe(step.recipe or overrides.DEFAULT)
        yield Run(recipe=base, host=host, target=dataclasses.replace(host, connection=there))


def taken(files: Sequence[Path], run: Run, console: Console, engine: str | None) -> tuple[Artifact, ...]:
    """Take files into the store as engines, each called by its file, with its folder where two have one name.

    Args:
        files: Engine or ONNX files, or bundles.
        run: Where.
        console: Told where a file is not the one of its passport.
        engine: Engine of all of them; None for that of each passport or ending.

    Raises:
        InputError: A file is missing, or of no engine.
        RequestError: Two files cannot be told apart.
    """
    for number, file in enumerate(files):
        if not file.exists():
            raise no_such_file(file)
        if any(file.samefile(other) for other in files[:number]):
            raise RequestError(f"{file}: given twice", hint="give each file once")
    entry = BuildEntry(engine=engine, variants=()) if engine else None
    found = dict[str, Artifact]()
    for file in files:
        if (wrong := mismatch(file)) and file.is_file():
            console.say(f"{file}: {wrong}")
        one = _taken(file, entry, run.target)
        if one.label in found:
            one = dataclasses.replace(one, name="-".join(file.resolve().with_suffix("").parts[-2:]))
        if one.label in found:
            raise RequestError(f"{file}: called as another file is", hint="rename one of them")
        found[one.label] = one
    return tuple(found.values())


def with_first_as_baseline(table: BenchTable, engines: Sequence[Artifact], named: str | None) -> BenchTable:
    """Return the table with the first file as its baseline, where several files are measured and none was named."""
    return table if named or len(engines) < 2 else table.model_copy(update={"baseline": engines[0].label})


def _taken(file: Path, entry: BuildEntry | None, context: Context) -> Artifact:
    if not contents.is_bundle(file):
        return adopt.run(file, entry, context, bare=True)[0]
    with contents.opened(file) as bundle:
        bundle.expect_whole()
        return adopt.run(bundle.engine_file, entry, context, stated=bundle.passport)[0]
