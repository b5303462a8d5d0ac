"""Every error that is raised on purpose, with its hint and its exit code.

DeployKitError
├── RequestError            2   the request is wrong
│   ├── RecipeError             a recipe, or an option of one
│   ├── UnknownNameError        an engine, scheme, pass, recipe or bundled file that does not exist
│   ├── InputError              a file or folder given: missing, truncated, of the wrong kind or shape
│   └── CheckpointError         a checkpoint that cannot be read as a DenseNet
├── MissingPackageError     3   an optional package is not installed
├── DeviceError             4   the device: unknown, unreachable, not ready
│   └── LinkLostError           the connection ended in the middle of the work
├── StageError              5   a stage failed on a request that was right
│   ├── ExportError, SimplifyError, SlimError, QuantizeError, BuildError, CheckError
│   ├── EngineCrashError        the worker process died or hung
│   ├── OutputError             standard output cannot be written
│   └── StoreError              the store: no space, no permission, a changed file
└── MeasurementError        6   the measurement is not valid

A check that fails (parity, accuracy, latency limit) is an answer, not an error: the command ends with exit code 1.
"""

import difflib
import itertools
import os
from collections.abc import Iterable
from pathlib import Path

_MOST_NEIGHBOURS = 10_000  # names of a folder that are compared


class DeployKitError(Exception):
    """Root of all errors raised on purpose.

    Attributes:
        hint: How to fix it, as a command if there is one; empty if no fix is known.
        exit_code: Exit code of the command line.
    """

    exit_code = 70

    def __init__(self, message: str, *, hint: str = "") -> None:
        """Create the error.

        Args:
            message: Where it occurred, what was expected and what was found.
            hint: How to fix it.
        """
        super().__init__(message)
        self.hint = hint

    @property
    def reason(self) -> str:
        """The message followed by the hint, for one row of a table."""
        return f"{self} ({self.hint})" if self.hint else str(self)


class RequestError(DeployKitError):
    """The request is wrong."""

    exit_code = 2


class RecipeError(RequestError):
    """A recipe, or an option of one, is wrong."""


class UnknownNameError(RequestError):
    """A name is not in its catalogue."""


class InputError(RequestError):
    """A file or folder given is missing, truncated, or not what was expected."""


class CheckpointError(RequestError):
    """A checkpoint cannot be read as a DenseNet."""

    def __init__(
        self,
        message: str,
        *,
        hint: str = "if the file is damaged, get it again; otherwise export the network to ONNX with its own code, and "
        "give that file",
    ) -> None:
        """Create the error; the default hint is a way on with any file."""
        super().__init__(message, hint=hint)


class MissingPackageError(DeployKitError):
    """An optional package is not installed."""

    exit_code = 3


class DeviceError(DeployKitError):
    """The device is unknown, unreachable or not ready."""

    exit_code = 4


class LinkLostError(DeviceError):
    """The connection to a device ended during the work; the last request may or may not have been carried out."""


class StageError(DeployKitError):
    """A stage failed on a request that was right."""

    exit_code = 5


class ExportError(StageError):
    """The checkpoint could not be exported, or the ONNX file disagrees with it."""


class SimplifyError(StageError):
    """A pass failed or broke its promise."""


class SlimError(StageError):
    """Channels could not be removed from the graph."""


class QuantizeError(StageError):
    """A scheme could not give the graph its precision."""


class BuildError(StageError):
    """An engine could not be built, or is not of the precision asked for."""


class CheckError(StageError):
    """The parity check could not be carried out."""


class EngineCrashError(StageError):
    """The worker process died, killed by its native code or from outside, or was ended because it hung."""


class OutputError(StageError):
    """Standard output cannot be written: the answer would be lost."""


class StoreError(StageError):
    """The store cannot be read or written."""


class MeasurementError(DeployKitError):
    """The measurement is not valid."""

    exit_code = 6


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name that was probably meant, or list all of them.

    Args:
        name: Name as it was written, e.g. ``tensort``.
        known: Names that exist.

    Returns:
        A hint, e.g. ``did you mean 'tensorrt'?`` or ``known: onnxruntime, openvino``; empty where no name exists.
    """
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return "known: " + ", ".join(names) if names else ""


def no_such_file(path: Path, what: str = "file", *, hint: str = "check the path") -> InputError:
    """Return the refusal of a path at which nothing is, naming its neighbour of a similar name where there is one.

    Args:
        path: Path as it was given.
        what: What was expected there, e.g. ``file or folder``.
        hint: What to do where no neighbour has a similar name.
    """
    close = difflib.get_close_matches(path.name, _neighbours(path.parent), n=1, cutoff=0.75)
    return InputError(f"{path}: no such {what}", hint=f"did you mean '{path.with_name(close[0])}'?" if close else hint)


def _neighbours(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in itertools.islice(entries, _MOST_NEIGHBOURS)]
    except OSError:  # no such folder either
        return []
