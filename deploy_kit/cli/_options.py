"""Options that several commands share, each worded once."""

from pathlib import Path
from typing import Annotated, Optional

import typer

StorePath = Annotated[Path, typer.Option("--store", help="Folder of results.", envvar="DEPLOYKIT_STORE")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Json = Annotated[bool, typer.Option("--json", help="Print the record as JSON.")]
NoColor = Annotated[bool, typer.Option("--no-color", help="Plain text, no moving progress.")]
DeviceName = Annotated[
    str, typer.Option("--device", help="Where to work: a name of `devices list`, or ssh://user@host:port.")
]
RecipeName = Annotated[
    Optional[str],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
    typer.Option("--recipe", help="A recipe file, or the name of a bundled recipe."),
]
ModelPath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Argument(help="A checkpoint or an ONNX file; by default the newest result in the store."),
]
CalibrationSet = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--calibration", help="Images to calibrate with: a folder, a CSV manifest, an npz file or bundled:NAME."
    ),
]
CheckSet = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--images", help="Images to check with: a folder, a CSV manifest, an npz file or bundled:NAME."),
]
OutPath = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", help="Also copy the result to this path."),
]
SkipBad = Annotated[
    bool, typer.Option("--skip-bad", help="Leave out images that cannot be read, and count them, instead of ending.")
]
AllowInvalid = Annotated[
    bool, typer.Option("--allow-invalid", help="Do not end with 6 where latencies are not valid; they stay marked.")
]
STORE = Path(".deploykit")
