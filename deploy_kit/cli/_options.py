"""Options that several commands share, each declared once: alone, or as a field of an option group."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from deploy_kit.cli._console import Console

STORE, REPORTS = Path(".deploykit"), Path("reports")

StorePath = Annotated[Path, typer.Option("--store", help="Folder of results.", envvar="DEPLOYKIT_STORE")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Where to work: a name of `devices list`, or ssh://user@host:port.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure again, even if the store has it.")]
AllowInvalid = Annotated[
    bool, typer.Option("--allow-invalid", help="Do not end with 6 where latencies are not valid; they stay marked.")
]
FailOnRegression = Annotated[
    str | None,
    typer.Option("--fail-on-regression", help="End with 1 where slower than the baseline by more, e.g. 3%."),
]
ReportFolder = Annotated[Path, typer.Option("--out", help="Folder of reports.")]
SaveRecipe = Annotated[Path | None, typer.Option("--save-recipe", help="Write the recipe in force to this file.")]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a command shows its progress and its result."""

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the record as JSON.")] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="Plain text, no moving progress.")] = False

    def console(self) -> "Console":
        """Return the console that draws this way."""
        from deploy_kit.cli._console import Console

        return Console(quiet=self.quiet, as_json=self.as_json, no_color=self.no_color)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What a single step works on, where and under which recipe. None takes what the recipe or the store has."""

    model: Annotated[
        Path | None, typer.Argument(help="A checkpoint or an ONNX file; by default the newest result in the store.")
    ] = None
    images: Annotated[
        str | None,
        typer.Option("--images", help="Images to check with: a folder, a CSV manifest, an npz file or bundled:NAME."),
    ] = None
    calibration: Annotated[
        str | None,
        typer.Option(
            "--calibration", help="Images to calibrate with: a folder, a CSV manifest, an npz file or bundled:NAME."
        ),
    ] = None
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out images that cannot be read, and count them, instead of ending."),
    ] = False
    crops: Annotated[int | None, typer.Option("--crops", help="Of each image, whose logits are averaged: 1 or 10.")] = (
        None
    )
    recipe: Annotated[str | None, typer.Option("--recipe", help="A recipe file, or the name of a bundled recipe.")] = (
        None
    )
    device: DeviceName = "local"
    store: StorePath = STORE
    out: Annotated[Path | None, typer.Option("--out", help="Also copy the result to this path.")] = None
