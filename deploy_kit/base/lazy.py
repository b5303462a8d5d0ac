"""Imports of optional packages; a missing one is an error with the line that installs it."""

import importlib
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from types import ModuleType
from typing import Any

from deploy_kit.base.errors import MissingPackageError

# Import name → what to install, where the two differ.
INSTALL = {
    "torch": "deploykit[torch]",
    "onnxscript": "deploykit[torch]",
    "onnxruntime": "deploykit[onnxruntime]",
    "openvino": "deploykit[openvino]",
    "ncnn": "deploykit[ncnn]",
    "pnnx": "deploykit[ncnn]",
    "executorch": "deploykit[executorch]",
    "fabric": "deploykit[ssh]",
    "ray": "deploykit[ray]",
    "h5py": "deploykit[keras]",
    "mlperf_loadgen": "deploykit[loadgen]",
    "model_signing": "deploykit[signing]",
    "OpenSSL": "deploykit[signing]",
    "cryptography": "deploykit[signing]",
    "nncf": "deploykit[nncf]",
    "tensorrt": "deploykit[tensorrt]",
    "tensorrt_rtx": "deploykit[tensorrt-rtx]",
    "PIL": "pillow",
    "onnx_ir": "onnx-ir",
}
# Import name → distribution, where replacing underscores by hyphens does not give its name.
_ALONE = {"mlperf_loadgen": "mlcommons-loadgen"}


# ONNX Runtime 1.31 sends events to a host of Microsoft from Linux too, some seconds after a session was made. It reads
# this variable when it is loaded, and children inherit it; a user who sets another value keeps it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def present(package: str) -> bool:
    """Return whether `package` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def install_line(package: str, *, bare: bool = False, python: str = "", managed: bool | None = None) -> str:
    """Return the command that installs a package.

    Args:
        package: Import name of the package.
        bare: Install the package itself instead of the extra of deploykit that brings it.
        python: Command of the interpreter to install it for; by default that of the shell.
        managed: Whether pip refuses to install for that interpreter (PEP 668); by default as it is here.

    Returns:
        A ``pip install`` command; on a device, where deploykit is not installed, always for the package itself. Where
        the system's own packages alone may be installed, that package, or an environment of its own.
    """
    if managed or (managed is None and externally_managed()):
        return _managed_line(package, python or "python3", bare=bare)
    target = INSTALL.get(package, package)
    if target.startswith("deploykit[") and (bare or not _installed()):
        target = _ALONE.get(package, package.replace("_", "-"))
    return f"{f'{python} -m ' if python else ''}pip install '{target}'"


def externally_managed() -> bool:
    """Return whether pip refuses to install for this interpreter, which the system's packages manage (PEP 668)."""
    if sys.prefix != sys.base_prefix:
        return False
    return Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").is_file()


def _managed_line(package: str, python: str, *, bare: bool) -> str:
    if package == "numpy":
        return "sudo apt-get install python3-numpy"
    target = install_line(package, bare=bare, managed=False).removeprefix("pip install ")
    needed = "'numpy' " if bare else ""
    there = "~/deploykit/bin/python3"
    use = f", and use it: deploykit devices add … --python PATH --replace (PATH: that of {there})" if bare else ""
    return f"{python} -m venv ~/deploykit && {there} -m pip install {needed}{target}{use}"


def _installed() -> bool:
    """Return whether deploykit is installed here; a device gets it as a zip application instead."""
    from importlib import metadata  # it takes milliseconds, and few commands ask

    try:
        metadata.version("deploykit")
    except metadata.PackageNotFoundError:
        return False
    return True


def optional(error: ModuleNotFoundError) -> str | None:
    """Return the optional package whose absence an error is about; None if it is about any other module."""
    package = (error.name or "").partition(".")[0]
    return package if package in INSTALL and not present(package) else None


def missing_error(package: str, *, by: str) -> MissingPackageError:
    """Return the error for a package that is not installed; for `by` see `need`."""
    return MissingPackageError(
        f"{by} needs the package '{package}', which is not installed here", hint=install_line(package)
    )


def need(package: str, *, by: str) -> ModuleType:
    """Import an optional package.

    Args:
        package: Import name of the package, e.g. ``tensorrt_rtx``.
        by: Part of the program that needs it, as the user knows it, e.g. ``engine 'tensorrt_rtx'``.

    Returns:
        The imported module.

    Raises:
        MissingPackageError: The package is not installed, or its native libraries do not load.
    """
    if not present(package):
        raise missing_error(package, by=by)
    switch_telemetry_off()
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"{by} needs the package '{package}', which is installed but does not load: {error}",
            hint=f"{install_line(package)} --force-reinstall",
        ) from error


class _Silent:
    """Takes every call of Intel's ``Telemetry`` and does nothing."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def switch_telemetry_off() -> None:
    """Put an empty package in the place of ``openvino_telemetry``, unless the process has loaded that one itself.

    ``import openvino`` asks for a host of Google Analytics, sends it an event and writes ``~/intel``, and NNCF does the
    same; their own switch is a file in the user's home. Nothing leaves the machine unasked.
    """
    name = "openvino_telemetry"
    if name not in sys.modules:
        package = ModuleType(name)
        package.Telemetry = _Silent  # type: ignore[attr-defined]
        sys.modules[name] = package
