"""The one place that imports optional packages and says what to install when one is missing."""

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
    "nncf": "deploykit[nncf]",
    "tensorrt": "deploykit[tensorrt]",
    "tensorrt_rtx": "deploykit[tensorrt-rtx]",
    "PIL": "pillow",
    "onnx_ir": "onnx-ir",
}
_ALONE = {"mlperf_loadgen": "mlcommons-loadgen"}  # import name → distribution, where hyphens do not make one


def present(package: str) -> bool:
    """Say whether `package` could be imported, without importing it."""
    return importlib.util.find_spec(package) is not None


def install_line(package: str, *, bare: bool = False) -> str:
    """Give the one line that installs `package`; alone, if `bare` or where this package itself is not installed."""
    target = INSTALL.get(package, package)
    if target.startswith("deploykit[") and (bare or not _installed()):
        target = _ALONE.get(package, package.replace("_", "-"))
    return f"pip install '{target}'"


def _installed() -> bool:
    """Say whether deploykit itself is installed here: not on a device, which gets it as one file."""
    try:
        importlib.metadata.version("deploykit")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def need(package: str, *, by: str) -> ModuleType:
    """Import `package` for the part of the program named `by`.

    Args:
        package: Import name, e.g. ``tensorrt_rtx``.
        by: Who asks, as the user knows it, e.g. ``engine 'tensorrt_rtx'``.

    Raises:
        MissingPackageError: The package is absent, or its native libraries do not load.
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
