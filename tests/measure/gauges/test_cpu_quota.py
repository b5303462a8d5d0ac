"""Waits for a CPU quota, read from control groups of both versions."""

from pathlib import Path

import pytest

from deploy_kit.measure.gauges import GaugeScope, cpu_quota


def tree(root: Path, membership: str, files: dict[str, str]) -> GaugeScope:
    for path, text in {"proc/self/cgroup": membership, **files}.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return GaugeScope(root=root)


def test_version_2_counts_microseconds(tmp_path: Path) -> None:
    stat = "usage_usec 900\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n"
    scope = tree(tmp_path, "0::/pod\n", {"sys/fs/cgroup/pod/cpu.stat": stat})

    (reading,) = cpu_quota.read(scope)

    assert (reading.gauge, reading.kind, reading.value) == ("cpu_quota", "quota_s", 2.5)


def test_version_1_counts_nanoseconds(tmp_path: Path) -> None:
    stat = "nr_periods 10\nnr_throttled 4\nthrottled_time 1500000000\n"
    scope = tree(tmp_path, "3:cpu,cpuacct:/pod\n", {"sys/fs/cgroup/cpu,cpuacct/pod/cpu.stat": stat})

    assert [reading.value for reading in cpu_quota.read(scope)] == [1.5]


def test_the_waits_of_outer_groups_count_too(tmp_path: Path) -> None:
    files = {f"sys/fs/cgroup/{at}cpu.stat": "throttled_usec 1000000\n" for at in ("pod/inner/", "pod/")}

    assert cpu_quota.read(tree(tmp_path, "0::/pod/inner\n", files))[0].value == 2.0


@pytest.mark.parametrize("text", ["usage_usec 900\n", "throttled_usec many\n", "\n", "throttled_usec\n"])
def test_a_group_that_counts_nothing_gives_a_reason(text: str, tmp_path: Path) -> None:
    scope = tree(tmp_path, "0::/\n", {"sys/fs/cgroup/cpu.stat": text})

    assert cpu_quota.read(scope) == ()
    assert cpu_quota.why_unavailable(scope) == "no control group with a count of CPU quota here"
