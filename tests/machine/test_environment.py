"""Tests of environment.py: what is read of this machine, and of x86 and ARM machines whose files are given."""

import math
import os
import platform
import subprocess
import sys

import numpy as np
import pytest

from deploy_kit.machine import cgroup, environment
from deploy_kit.records import codec
from deploy_kit.records.measurements import Environment

CPUINFO = "/proc/cpuinfo"
CLOCK = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq"
GOVERNOR = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
DRIVER = "/proc/driver/nvidia/version"

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
cpu MHz\t\t: 2400.125
flags\t\t: fpu avx2 avx512f avx512_vnni amx_int8 hypervisor

processor\t: 1
model name\t: another
flags\t\t: fpu"""
ARM = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd asimddp i8mm bf16
CPU part\t: 0xd42"""


@pytest.fixture
def machine(monkeypatch):
    """Give a function that describes a machine with these files and no others."""

    def describe(files):
        monkeypatch.setattr(environment, "_read", lambda path: files.get(path, ""))
        return environment.describe_machine()

    return describe


def test_this_machine_is_described_as_python_knows_it():
    here = environment.describe_machine()

    assert here.host == f"{platform.system()} {platform.release()} {platform.machine()}"


def test_cores_are_those_this_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert environment.describe_machine().cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_memory_is_that_of_proc_meminfo():
    with open("/proc/meminfo") as file:
        kib = int(file.readline().split()[1])

    assert environment.describe_machine().memory_gib == pytest.approx(kib / 2**20, abs=0.06)


def test_a_description_crosses_as_json():
    here = environment.describe_machine()

    assert codec.from_json(Environment, codec.to_json(here)) == here


def test_an_x86_processor_is_named(machine):
    assert machine({CPUINFO: X86}).cpu == "Intel(R) Xeon(R) Platinum 8488C"


def test_instruction_sets_that_matter_are_told_in_a_fixed_order(machine):
    assert machine({CPUINFO: X86}).isa == ("avx2", "avx512f", "avx512_vnni", "amx_int8")


def test_a_hypervisor_is_noticed(machine):
    assert machine({CPUINFO: X86}).virtual


def test_bare_metal_is_not_taken_for_a_virtual_machine(machine):
    assert not machine({CPUINFO: X86.replace(" hypervisor", "")}).virtual


def test_instruction_sets_of_arm_are_told(machine):
    assert machine({CPUINFO: ARM}).isa == ("asimddp", "i8mm", "bf16")


def test_a_processor_without_a_model_name_is_called_by_its_kind(machine, monkeypatch):
    monkeypatch.setattr(platform, "processor", lambda: "")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    assert machine({CPUINFO: ARM}).cpu == "aarch64"


def test_the_clock_of_cpufreq_is_in_khz(machine):
    assert machine({CPUINFO: X86, CLOCK: "3100000"}).clock_mhz == 3100


def test_without_cpufreq_the_clock_is_that_of_cpuinfo(machine):
    assert machine({CPUINFO: X86}).clock_mhz == 2400.125


def test_the_governor_is_told(machine):
    assert machine({GOVERNOR: "powersave"}).governor == "powersave"


def test_an_nvidia_driver_is_told_by_its_first_line(machine):
    here = machine({DRIVER: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86\nGCC version: 12"})

    assert here.gpu == "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86"


def test_what_a_machine_does_not_give_stays_empty(machine):
    bare = machine({})

    assert (bare.isa, bare.governor, bare.clock_mhz, bare.gpu, bare.virtual) == ((), "", 0.0, "", False)


def test_a_file_that_does_not_exist_reads_as_empty(tmp_path):
    assert environment._read(str(tmp_path / "none")) == ""


def test_a_device_trees_closing_zero_is_cut_off(tmp_path):
    (tmp_path / "model").write_bytes(b"NVIDIA Jetson Orin Nano\0")

    assert environment._read(str(tmp_path / "model")) == "NVIDIA Jetson Orin Nano"


def test_the_version_of_a_library_is_its_own():
    assert environment.library_version("numpy") == np.__version__


def test_the_version_of_an_absent_library_is_empty():
    assert environment.library_version("library-that-nobody-wrote") == ""


def test_versions_begin_with_python():
    assert environment.library_versions()[0] == ("python", platform.python_version())


def test_versions_leave_out_absent_libraries(monkeypatch):
    monkeypatch.setattr(environment, "library_version", lambda name: "1.0" if name == "onnx" else "")

    assert environment.library_versions()[1:] == (("onnx", "1.0"),)


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A distribution that registers an engine, requires one library, and another with an extra."""
    facts = tmp_path / "engine_of_others-2.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: engine-of-others\nVersion: 2.0\nRequires-Dist: numpy>=1\n"
        'Requires-Dist: deploykit\nRequires-Dist: pytest; extra == "test"\n'
    )
    (facts / "entry_points.txt").write_text("[deploy_kit.engines]\nothers = engine_of_others:ENGINE\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    environment._third_party_libraries.cache_clear()
    yield
    environment._third_party_libraries.cache_clear()


def test_versions_hold_a_third_partys_distribution_and_what_it_requires(plugin):
    assert environment._third_party_libraries() == ("engine-of-others", "numpy")
    assert ("engine-of-others", "2.0") in environment.library_versions()


def test_a_library_of_deploykits_own_is_listed_once_where_a_third_party_requires_it_too(plugin):
    assert [name for name, _ in environment.library_versions()].count("numpy") == 1


def test_peak_memory_is_read_in_mib(monkeypatch):
    status = "Name:\tpython\nVmPeak:\t 9000000 kB\nVmHWM:\t  524288 kB\nVmRSS:\t  1000 kB"
    monkeypatch.setattr(environment, "_read", {"/proc/self/status": status}.get)

    assert environment.peak_memory_mib() == 512


def test_peak_memory_grows_by_what_is_held():
    script = """
from deploy_kit.machine.environment import peak_memory_mib
before = peak_memory_mib()
held = b"x" * (64 << 20)
print(peak_memory_mib() - before)
"""
    grown = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert int(grown) == pytest.approx(64, abs=16)


def test_peak_memory_is_zero_where_the_system_does_not_say(monkeypatch):
    monkeypatch.setattr(environment, "_read", lambda path: "")

    assert environment.peak_memory_mib() == 0


def test_memory_is_read_in_mib(monkeypatch):
    status = "Name:\tpython\nVmHWM:\t  524288 kB\nVmRSS:\t  262144 kB"
    monkeypatch.setattr(environment, "_read", {"/proc/self/status": status}.get)

    assert environment.resident_memory_mib() == 256


@pytest.mark.parametrize(("quota", "threads"), [(0.0, 8), (1.5, 2), (2.0, 2), (0.25, 1), (64.0, 8)])
def test_usable_cores_are_those_of_the_affinity_or_of_the_quota_if_fewer(monkeypatch, quota, threads):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: quota)

    assert environment.usable_cores() == threads


def test_limits_of_a_container_are_told(machine, monkeypatch):
    monkeypatch.setattr(cgroup, "cpu_limit", lambda: 1.5)
    monkeypatch.setattr(cgroup, "memory_limit_bytes", lambda: 3 << 29)

    here = machine({})

    assert (here.cpu_limit, here.memory_limit_gib) == (1.5, 1.5)


def test_load_is_a_number():
    assert math.isfinite(environment.describe_machine().load)
