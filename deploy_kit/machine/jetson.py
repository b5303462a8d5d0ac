"""Facts of a Jetson board, from its files: L4T, JetPack, power mode, compute capability. Empty on other machines."""

import re
from dataclasses import dataclass
from pathlib import Path

# Tegra generation → CUDA compute capability: rbonghi/jetson_stats jtop/core/jetson_variables.py; Thor (tegra264):
# NVIDIA/TensorRT issue 4832.
_CAPABILITIES = {"tegra210": "5.3", "tegra186": "6.2", "tegra194": "7.2", "tegra234": "8.7", "tegra264": "11.0"}
_RELEASE = re.compile(r"R(\d+) \(release\), REVISION: ([\d.]+)")
_MODE = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>")


@dataclass(frozen=True, kw_only=True)
class Jetson:
    """Facts of a Jetson board; a fact that is not there is empty.

    Attributes:
        board: Model in the device tree.
        l4t: Jetson Linux release, e.g. ``36.4.3``.
        jetpack: Version of the Debian package ``nvidia-jetpack``.
        tensorrt: Version of the Debian package ``tensorrt``.
        power_mode: Name of the power mode that nvpmodel has set.
        cuda_capability: Compute capability of the board's GPU, by its Tegra generation.
    """

    board: str
    l4t: str
    jetpack: str
    tensorrt: str
    power_mode: str
    cuda_capability: str


def describe_jetson(root: Path = Path("/")) -> Jetson:
    """Read the facts of the board whose files are under `root`."""
    release = _RELEASE.search(_read(root / "etc/nv_tegra_release"))
    generations = re.findall(r"nvidia,(tegra\d+)", _read(root / "proc/device-tree/compatible"))
    return Jetson(
        board=_read(root / "proc/device-tree/model"),
        l4t=".".join(release.groups()) if release else "",
        jetpack=_package(root, "nvidia-jetpack"),
        tensorrt=_package(root, "tensorrt"),
        power_mode=_power_mode(root),
        cuda_capability=next((_CAPABILITIES[name] for name in generations if name in _CAPABILITIES), ""),
    )


def _package(root: Path, name: str) -> str:
    """Return the version of a Debian package; empty where it is not installed."""
    for block in _read(root / "var/lib/dpkg/status").split("\n\n"):
        if re.search(rf"^Package: {name}$", block, re.M) and re.search(r"^Status: .* installed$", block, re.M):
            version = re.search(r"^Version: (.+)$", block, re.M)
            return version[1].strip() if version else ""
    return ""


def _power_mode(root: Path) -> str:
    """Return the name of the power mode in force: nvpmodel's status has its number, its configuration the name."""
    status = re.search(r"pmode:(\d+)", _read(root / "var/lib/nvpmodel/status"))
    if status is None:
        return ""
    names: dict[int, str] = {int(number): name for number, name in _MODE.findall(_read(root / "etc/nvpmodel.conf"))}
    return names.get(int(status[1]), f"mode {int(status[1])}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\n\0 ")
    except OSError:
        return ""
