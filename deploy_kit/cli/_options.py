"""Options that several commands share, each declared once: alone, or as a field of an option group."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

if TYPE_CHECKING:
    from deploy_kit.cli._console import Console

STORE, REPORTS = Path(".deploykit"), Path("reports")

StorePath = Annotated[Path, typer.Option("--store", help="Folder that keeps all results.", envvar="DEPLOYKIT_STORE")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Device to work on: a name from `devices list`, or ssh://user@host:port.")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Measure latency again, even if the store has a result.")]
AllowInvalid = Annotated[
    bool, typer.Option("--allow-invalid", help="Do not exit with code 6 if latencies are invalid; they stay marked.")
]
FailOnRegression = Annotated[
    str | None,
    typer.Option(
        "--fail-on-regression",
        help="Exit with code 1 if an engine is slower than the baseline by more than this, e.g. 3%.",
    ),
]
On = Annotated[
    str,
    typer.Option(
        "--on",
        metavar="PLACE",
        help="Compute the logits of checkpoints and engines, and the statistics of calibration, on Ray: 'ray' on this "
        "machine, 'ray://HOST:PORT' on a cluster.",
    ),
]
ReportFolder = Annotated[Path, typer.Option("--out", "-o", help="Folder to write reports to.")]
Pack = Annotated[
    Path | None,
    typer.Option(
        help="Also pack the recommended engine into this bundle: a folder, or a .zip. With --allow-invalid, where "
        "invalid latencies leave none, the smallest whose accuracy is accepted."
    ),
]
Dynamic = Annotated[bool, typer.Option("--dynamic", help="Export a graph with a dynamic batch size.")]
SaveRecipe = Annotated[Path | None, typer.Option("--save-recipe", help="Write the recipe in force to this file.")]


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """How a command shows its progress and its result."""

    HEADING: ClassVar[str] = "Output"

    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no notes.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as a JSON record.")] = False
    no_color: Annotated[bool, typer.Option("--no-color", help="Show plain text without an animated progress bar.")] = (
        False
    )

    def console(self) -> "Console":
        """Return the console that draws this way."""
        from deploy_kit.cli._console import Console

        return Console(quiet=self.quiet, as_json=self.as_json, no_color=self.no_color)


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What a single step works on, where and under which recipe. None takes what the recipe or the store has."""

    HEADING: ClassVar[str] = "Images, recipe and place"

    model: Annotated[
        Path | None, typer.Argument(help="Checkpoint or ONNX file; by default the newest result in the store.")
    ] = None
    images: Annotated[
        str | None,
        typer.Option(help="Images to check on: a folder, a CSV manifest, an npz file or bundled:NAME."),
    ] = None
    calibration: Annotated[
        str | None,
        typer.Option(help="Images to calibrate with: a folder, a CSV manifest, an npz file or bundled:NAME."),
    ] = None
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Skip images that cannot be read, and report them, instead of failing."),
    ] = False
    orientation: Annotated[
        Literal["stored", "upright"] | None,
        typer.Option(
            help="Read images with an EXIF orientation as they are stored, or turned upright; by default such images "
            "are refused."
        ),
    ] = None
    crops: Annotated[
        Literal[1, 10] | None, typer.Option(help="Number of crops per image whose logits are averaged; by default 1.")
    ] = None
    task: Annotated[
        str | None,
        typer.Option(
            help="What the outputs mean: classify, multilabel, segment, sequence, embed or regress; by default what "
            "the output's shape and the labels suggest."
        ),
    ] = None
    masks: Annotated[
        str | None,
        typer.Option(help="Folder of masks for task segment: PNGs of class numbers, with the names of the images."),
    ] = None
    ignore_index: Annotated[
        int | None, typer.Option("--ignore-index", help="Class number of masks that is not judged, e.g. 255.")
    ] = None
    every_image: Annotated[
        bool,
        typer.Option(
            "--every-image",
            help="Run float32 engines on every image; by default on a part where there are 500 or more.",
        ),
    ] = False
    recipe: Annotated[str | None, typer.Option(help="Recipe file, or name of a bundled recipe.")] = None
    device: DeviceName = "local"
    on: On = ""
    store: StorePath = STORE
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also copy the result to this path.")] = None
