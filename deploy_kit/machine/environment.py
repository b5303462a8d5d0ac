"""Description of the machine and its settings, read from files of Linux; a fact that is not there stays empty."""

import functools
import math
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path

from deploy_kit.base.errors import MissingPackageError
from deploy_kit.base.lazy import install_line
from deploy_kit.base.versions import is_older
from deploy_kit.machine import cgroup, emulation, jetson
from deploy_kit.records.measurements import Environment

# Instruction sets that decide how fast integer and half precision inference is, or how exact: x64 without VNNI sums
# int8 products in 16 bits, which may saturate.
_ISA = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_int8",
    "amx_bf16",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
_LIBRARIES = (
    "deploykit",
    "torch",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
    "openvino",
    "ncnn",
    "pnnx",
    "executorch",
    "nncf",
    "tensorrt",
    "tensorrt-cu13",
    "tensorrt-cu12",
    "tensorrt_rtx",
    "numpy",
)


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip("\n\0 ")
    except OSError:
        return ""


def library_version(name: str) -> str:
    """Return the version of an installed distribution; empty if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def expect_version(name: str, oldest: str, *, by: str) -> None:
    """Refuse an installed distribution that is older than what uses it was written for.

    Raises:
        MissingPackageError: It is older.
    """
    found = library_version(name)
    if is_older(found, oldest):
        raise MissingPackageError(
            f"{by} needs {name} {oldest} or newer, found {found}", hint=f"{install_line(name)} --upgrade"
        )


def library_versions() -> tuple[tuple[str, str], ...]:
    """List (library, version) of the installed libraries that decide an artifact or a number.

    After Python come the libraries of deploykit, then the distributions of third parties that register entries of its
    catalogues, with the distributions that they require: an engine from outside names its library there.
    """
    names = dict.fromkeys((*_LIBRARIES, *_third_party_libraries()))
    rows = ((name, library_version(name)) for name in names)
    return (("python", platform.python_version()), *((name, text) for name, text in rows if text))


@functools.cache  # reads the metadata of every installed distribution, which takes 20 ms
def _third_party_libraries() -> tuple[str, ...]:
    names = set[str]()
    for distribution in distributions():
        if any(point.group.startswith("deploy_kit.") for point in distribution.entry_points):
            required = (text for text in distribution.requires or () if "extra ==" not in text)
            names |= {distribution.metadata["Name"], *(re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in required)}
    return tuple(sorted(names - {"deploykit"}))


def _cpu_facts() -> dict[str, str]:
    """Read the first processor's block of /proc/cpuinfo; its instruction sets are ``flags`` (x86) or ``Features``."""
    block = _read("/proc/cpuinfo").split("\n\n")[0]
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}


def _clock_mhz(facts: dict[str, str]) -> float:
    khz = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq")
    return float(khz) / 1000 if khz else float(facts.get("cpu MHz", 0))


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _free_memory_gib() -> float:
    words = (line.split() for line in _read("/proc/meminfo").splitlines())
    return next((round(int(word[1]) / 2**20, 2) for word in words if word[0] == "MemAvailable:"), 0.0)


def versions_of(*libraries: str) -> tuple[tuple[str, str], ...]:
    """List (library, version) of those of `libraries` that are installed, in the order of `library_versions`."""
    return tuple(row for row in library_versions() if row[0] in libraries)


def usable_cores() -> int:
    """Return the number of logical cores that this process may use.

    These are the cores of its affinity, or of its container's quota if that allows fewer. A quota of 1.5 cores gives 2,
    because one thread could not use it up.
    """
    allowed, quota = len(os.sched_getaffinity(0)), cgroup.cpu_limit()
    return min(allowed, math.ceil(quota)) if quota else allowed


def resident_memory_mib() -> int:
    """Return the resident memory of this process in MiB; 0 where the system does not report it."""
    return _status_mib("VmRSS:")


def peak_memory_mib() -> int:
    """Return the peak resident memory of this process in MiB; 0 where the system does not report it.

    ``getrusage`` would not do: its maximum is inherited from the process that started this one.
    """
    return _status_mib("VmHWM:")


def _status_mib(field: str) -> int:
    lines = (line.split() for line in _read("/proc/self/status").splitlines())
    return next((int(words[1]) // 1024 for words in lines if words[0] == field), 0)


def _gpu() -> str:
    driver = _read("/proc/driver/nvidia/version").partition("\n")[0]
    board = _read("/proc/device-tree/model") if Path("/dev/nvhost-gpu").exists() else ""
    return ", ".join(filter(None, [board, driver]))


def describe_machine() -> Environment:
    """Describe the machine at this moment."""
    facts = _cpu_facts()
    flags = (facts.get("flags") or facts.get("Features") or "").split()
    cpu = facts.get("model name") or platform.processor() or platform.machine()
    emulated = emulation.detect_emulator(facts)
    if emulated and "flags" in facts and platform.machine() == "aarch64":  # /proc/cpuinfo is the host's there
        cpu, flags = f"{platform.machine()} on {cpu}", list(emulation.arm_features())
    return Environment(
        host=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu=cpu,
        isa=tuple(name for name in _ISA if name in flags),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=_memory_gib(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        clock_mhz=0.0 if emulated else _clock_mhz(facts),
        load=round(os.getloadavg()[0], 2),
        gpu=_gpu(),
        virtual="hypervisor" in flags,
        cpu_limit=round(cgroup.cpu_limit(), 2),
        memory_limit_gib=round(cgroup.memory_limit_bytes() / 2**30, 2),
        emulated=emulated,
        versions=library_versions(),
        free_memory_gib=_free_memory_gib(),
        **vars(jetson.describe_jetson()),
    )
