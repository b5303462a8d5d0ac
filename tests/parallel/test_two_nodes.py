"""A cluster of two nodes on the loopback address: joined by its address, its workers used, a lost node survived."""

import os
import time
from pathlib import Path

import pytest

from deploy_kit.base import lazy
from deploy_kit.base.errors import DeviceError
from deploy_kit.parallel import ray_workers

pytestmark = pytest.mark.slow


def test_a_node_that_is_lost_in_the_middle_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not lazy.present("ray"):
        pytest.skip(lazy.install_line("ray"))
    for name, text in {**ray_workers._QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": ray_workers._token()}.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("HOME", str(tmp_path))
    from ray.cluster_utils import Cluster

    def slow_square(n: int) -> tuple[int, str]:
        import ray

        time.sleep(0.2)
        return n * n, ray.get_runtime_context().get_node_id()

    node = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    try:
        second = cluster.add_node(**{k: v for k, v in node.items() if k != "include_dashboard"})
        with ray_workers.open_workers(f"ray://{cluster.address}", print) as workers:
            assert workers.n == 2
            results, nodes = list[int](), set[str]()
            for value, place in workers.map(slow_square, range(60)):
                results.append(value)
                nodes.add(place)
                if len(nodes) == 2 and second is not None:
                    cluster.remove_node(second, allow_graceful=False)
                    second = None
    finally:
        cluster.shutdown()

    assert results == [n * n for n in range(60)]
    assert len(nodes) == 2
    assert os.listdir(tmp_path) == []


def test_a_cluster_that_is_not_there_is_a_device_that_does_not_answer() -> None:
    if not lazy.present("ray"):
        pytest.skip(lazy.install_line("ray"))

    with (
        pytest.raises(DeviceError, match=r"Ray on 127\.0\.0\.1:1: Connection refused"),
        ray_workers.open_workers("ray://127.0.0.1:1", print),
    ):
        pass
