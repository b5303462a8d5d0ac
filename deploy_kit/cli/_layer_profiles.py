"""Load costs and layer profiles on the command line."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from deploy_kit.base.errors import RequestError
from deploy_kit.base.plain_text import shell_word
from deploy_kit.base.whole_files import verify_place, write_whole
from deploy_kit.cli import _tool_formats
from deploy_kit.cli._console import Console, table
from deploy_kit.records.measurements import Measurement
from deploy_kit.records.results import EngineRow
from deploy_kit.stages.report import layer_breakdown


def tables(rows: Iterable[EngineRow]) -> Iterator[str]:
    """Draw what loading cost, then each profile that there is."""
    measured = [(r.artifact, r.measurement) for r in rows if r.artifact and isinstance(r.measurement, Measurement)]
    if measured:
        yield table(*layer_breakdown.costs(measured), spare=("first run", "build", "runs on"))
    for _, measurement in measured:
        profile = measurement.profile
        if profile is not None:
            lines = [table(*layer_breakdown.regions(profile))] if profile.layers else []
            yield "\n".join([layer_breakdown.sentence(measurement, profile), *lines])


def verify_export(file: Path | None, *, n_engines: int) -> None:
    """Refuse a file that a profile cannot be written to, before any work.

    Raises:
        RequestError: Several engines are measured, and the file holds one profile.
        InputError: A folder, or a file in a folder that does not exist.
    """
    if file is None:
        return
    if n_engines > 1:
        raise RequestError(
            f"--export-profile writes the profile of one engine, {n_engines} are measured",
            hint="name one with --engine and --variant; with --json every profile is in the record",
        )
    verify_place(file, shell_word(file / "profile.json"))


def export(measurements: Sequence[Measurement], file: Path | None, console: Console) -> None:
    """Write the profile with the keys of ``trtexec --exportProfile``.

    Raises:
        RequestError: The engine does not time its layers.
    """
    profile = measurements[0].profile if measurements else None
    if file is None or profile is None:
        return
    if not profile.layers:
        raise RequestError(
            f"{measurements[0].label}: no profile to write: {profile.remark}",
            hint="engines 'onnxruntime' and 'openvino' time their layers",
        )
    write_whole(file, json.dumps(_tool_formats.layers(profile), ensure_ascii=False, indent=1) + "\n")
    console.say(f"profile written to {file}")
