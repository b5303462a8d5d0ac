"""Small real parts that many tests share: a tiny DenseNet with lively BatchNorms, its images, a connection, a store."""

import math
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tiny_densenet import tiny_recipe

from deploy_kit.base import lazy
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.measure import validity
from deploy_kit.recipe import Recipe
from deploy_kit.store import Store

pytest_plugins = ["machine_needs", "ssh_devices", "edge_devices", "small_plans"]


def pytest_configure() -> None:
    os.environ.pop("COLUMNS", None)  # a worker of pytest-xdist has 80, and tables would be wrapped
    # Threads of OpenMP wait for each other by spinning: on two busy cores tests/checkpoint/test_generality.py
    # took 319 s with two of them and 54 s with one. The variable is for the processes that tests start.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    lazy.switch_telemetry_off()  # for tests that import OpenVINO or NNCF themselves
    # A job that a shell starts with `&` ignores Ctrl-C, and so would every process that tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # the same of `nohup`
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let workers begin with the files that take long: one that came last would leave the other workers idle.

    Those are the files of whole runs, which lie at the top, then those with the most slow tests.
    """
    if hasattr(config, "workerinput"):
        long = {"slow", "ssh", "edge"}
        slow = Counter(item.path for item in items if long & {mark.name for mark in item.iter_markers()})
        top = Path(__file__).parent
        items.sort(key=lambda item: (not slow[item.path], item.path.parent != top, -slow[item.path]))


@pytest.fixture(scope="session", autouse=True)
def without_the_user_s_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let no device that the user of this machine has named be known to tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session", autouse=True)
def beside_other_load() -> Iterator[None]:
    """Let benches of tests be valid beside other tests; those of the rule itself set it back (`alone`)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validity, "MAX_FOREIGN", math.inf)
        yield


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge foreign load as users have it judged."""
    monkeypatch.setattr(validity, "MAX_FOREIGN", 0.05)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="session")
def connection() -> Iterator[Connection]:
    with links.connect_device(links.LOCAL) as connection:
        yield connection


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """The tiny recipe, its files in a folder of the session."""
    return tiny_recipe(tmp_path_factory.mktemp("tiny"))
