"""Control groups: the files of both versions as the kernel writes them, and none at all."""

from pathlib import Path

import pytest

from deploy_kit.machine import cgroup

V1_UNLIMITED = "9223372036854771712"


def written(folder: Path, files: dict[str, str], membership: str) -> dict[str, Path]:
    """Write control-group files; give the arguments that point there."""
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    (folder / "self").write_text(membership + "\n")
    return {"root": folder / "cgroup", "membership": folder / "self"}


@pytest.mark.parametrize(
    ("text", "cpus"), [("150000 100000", 1.5), ("max 100000", 0.0), ("50000 100000", 0.5), ("", 0.0)]
)
def test_cpu_max_is_quota_over_period(tmp_path: Path, text: str, cpus: float) -> None:
    assert cgroup.cpu_limit(**written(tmp_path, {"cpu.max": text}, "0::/")) == cpus


def test_the_tightest_of_all_groups_on_the_way_up_holds(tmp_path: Path) -> None:
    files = {"outer/cpu.max": "200000 100000", "outer/inner/cpu.max": "400000 100000", "other/cpu.max": "1000 100000"}

    assert cgroup.cpu_limit(**written(tmp_path, files, "0::/outer/inner")) == 2


def test_memory_max_is_in_bytes(tmp_path: Path) -> None:
    assert cgroup.memory_limit_bytes(**written(tmp_path, {"memory.max": "536870912"}, "0::/")) == 512 << 20


def test_memory_without_a_limit_is_zero(tmp_path: Path) -> None:
    assert cgroup.memory_limit_bytes(**written(tmp_path, {"memory.max": "max"}, "0::/")) == 0


@pytest.mark.parametrize(("quota", "cpus"), [("250000", 2.5), ("-1", 0.0)])
def test_version_1_has_quota_and_period_in_files_of_their_own(tmp_path: Path, quota: str, cpus: float) -> None:
    files = {"cpu,cpuacct/job/cpu.cfs_quota_us": quota, "cpu,cpuacct/job/cpu.cfs_period_us": "100000"}

    assert cgroup.cpu_limit(**written(tmp_path, files, "4:cpu,cpuacct:/job")) == cpus


def test_a_container_of_version_1_shows_its_group_as_the_root(tmp_path: Path) -> None:
    files = {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}

    assert cgroup.cpu_limit(**written(tmp_path, files, "4:cpu,cpuacct:/docker/0123abcd")) == 1


@pytest.mark.parametrize(("text", "limit"), [("1073741824", 1 << 30), (V1_UNLIMITED, 0)])
def test_version_1_writes_no_limit_as_a_number(tmp_path: Path, text: str, limit: int) -> None:
    files = {"memory/job/memory.limit_in_bytes": text, "memory/memory.limit_in_bytes": V1_UNLIMITED}

    assert cgroup.memory_limit_bytes(**written(tmp_path, files, "4:memory:/job")) == limit


def test_of_both_versions_at_once_the_one_with_a_limit_counts(tmp_path: Path) -> None:
    files = {"unified/cpu.max": "max 100000", "cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}

    assert cgroup.cpu_limit(**written(tmp_path, files, "1:cpu:/\n0::/")) == 3


def test_a_group_of_another_controller_is_not_taken_for_the_cpus(tmp_path: Path) -> None:
    files = {"cpuset/cpu.cfs_quota_us": "100000", "cpuset/cpu.cfs_period_us": "100000"}

    assert cgroup.cpu_limit(**written(tmp_path, files, "3:cpuset:/")) == 0


def test_a_system_without_control_groups_has_no_limit(tmp_path: Path) -> None:
    nowhere = {"root": tmp_path / "none", "membership": tmp_path / "none"}

    assert (cgroup.cpu_limit(**nowhere), cgroup.memory_limit_bytes(**nowhere)) == (0, 0)
