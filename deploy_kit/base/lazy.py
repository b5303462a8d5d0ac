"""Imports of optional packages; a missing one is an error with the line that installs it."""

import importlib
import importlib.metadata
import importlib.util
from types import ModuleType

from deploy_kit.base.errors import MissingPackageError

# Import name → what to install, where the two differ.
INSTALL = {
    "fabric": "deploykit[ssh]",
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


def present(package: str) -> bool:
    """Return whether `package` can be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def install_line(package: str, *, bare: bool = False) -> str:
    """Return the command that installs a package.

    Args:
        package: Import name of the package.
        bare: Install the package itself instead of the extra of deploykit that brings it.

    Returns:
        A ``pip install`` command; on a device, where deploykit is not installed, always for the package itself.
    """
    target = INSTALL.get(package, package)
    if target.startswith("deploykit[") and (bare or not _installed()):
        target = _ALONE.get(package, package.replace("_", "-"))
    return f"pip install '{target}'"


def _installed() -> bool:
    """Return whether deploykit is installed here; a device gets it as a zip application instead."""
    try:
        importlib.metadata.version("deploykit")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


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
        raise MissingPackageError(
            f"{by} needs the package '{package}', which is not installed here", hint=install_line(package)
        )
    try:
        return importlib.import_module(package)
    except (ImportError, OSError) as error:
        raise MissingPackageError(
            f"{by} needs the package '{package}', which is installed but does not load: {error}",
            hint=f"{install_line(package)} --force-reinstall",
        ) from error
