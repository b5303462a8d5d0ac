"""``deploykit store``: the results that commands have kept, and what may go."""

import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated

import typer

from deploy_kit.cli import Command
from deploy_kit.cli._options import STORE, OutputOptions, StorePath

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deploy_kit.store import KeptResult

_DAY_S = 86400.0


def store() -> None:
    """List the results that commands have kept, and remove those that are not used any more."""


def show(*, store: StorePath = STORE, output: OutputOptions) -> None:
    """List all results, with their size, their checkpoint and when they were used last."""
    from deploy_kit.cli._console import table
    from deploy_kit.records.engine_table import size
    from deploy_kit.store import Store

    results = Store(store).results()
    rows = [
        (result.folder, size(result.size_bytes), _used(result), PurePath(result.checkpoint).name) for result in results
    ]
    with output.console() as console:
        listed = table(("result", "size", "used", "checkpoint"), rows)
        console.result(results, f"{listed}\n\n{_total(results)} in {store}")


def prune(
    *,
    unused_for: Annotated[
        str, typer.Option(help="Remove results that were not used for this many days; 0d removes all.")
    ] = "30d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be removed, and exit.")] = False,
    store: StorePath = STORE,
    output: OutputOptions,
) -> None:
    """Remove results that were not used for a while; what is needed again is made again."""
    from deploy_kit.cli import _quantities
    from deploy_kit.store import Store

    kept = Store(store)
    newest = time.time() - _DAY_S * _quantities.days("--unused-for", unused_for)
    old = [result for result in kept.results() if result.used <= newest]
    with output.console() as console:
        for result in () if dry_run else old:
            kept.remove(result)
        lines = [f"{result.folder} ({_used(result)})" for result in old]
        done = "would be removed from" if dry_run else "removed from"
        console.result(old, "\n".join([*lines, f"{_total(old)} {done} {store}"]))


def _used(result: "KeptResult") -> str:
    return time.strftime("%Y-%m-%d", time.localtime(result.used)) if result.used else "not known"


def _total(results: "Sequence[KeptResult]") -> str:
    from deploy_kit.records.engine_table import size

    return f"{len(results)} results, {size(sum(result.size_bytes for result in results))}"


COMMAND = Command(
    call=store,
    order=97,
    parts={"list": show, "prune": prune},
    examples={"list": "deploykit store list", "prune": "deploykit store prune --unused-for 30d"},
)
