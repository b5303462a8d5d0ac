"""The compute capability of a PC's GPU: asked of the driver in a worker, and only where no file tells it."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from deploy_kit.analysis.doctor import facts_of
from deploy_kit.base.errors import EngineCrashError
from deploy_kit.devices import links
from deploy_kit.devices.compute_capability import ask_capability, with_capability
from deploy_kit.devices.links import local
from deploy_kit.machine import environment
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.records.measurements import Environment

if TYPE_CHECKING:
    from fake_driver import Driver

pytest_plugins = ["fake_driver"]

HERE = replace(environment.describe_machine(), gpu="", cuda_capability="")
PC = replace(HERE, gpu="NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024")


class Asked:
    """A worker that answers, or dies of the question."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer

    def ask(self, op: str, about: str) -> dict[str, Any]:
        if self.answer is None:
            raise EngineCrashError(f"{about}: the worker process died in '{op}' with SIGSEGV")
        return {"capability": self.answer}


def never() -> str:
    raise AssertionError("asked")


def test_a_worker_asks_the_driver(driver: "Driver") -> None:
    assert WorkerProgram().operations["cuda_capability"]({}) == {"capability": "8.7"}


def test_a_worker_without_a_driver_gives_nothing(driver: "Driver") -> None:
    driver.fail("cuInit", 100)

    assert WorkerProgram().operations["cuda_capability"]({}) == {"capability": ""}


def test_no_context_is_made_for_it(driver: "Driver") -> None:
    WorkerProgram().operations["cuda_capability"]({})

    assert not [line for line in driver.calls if "Ctx" in line]


@pytest.mark.parametrize("found", [HERE, replace(PC, cuda_capability="8.7")], ids=["no GPU", "a file tells it"])
def test_nothing_is_asked_where_there_is_nothing_to_learn(found: Environment) -> None:
    assert with_capability(found, never) == found


def test_the_doctor_knows_the_capability_of_a_pc() -> None:
    found = with_capability(PC, lambda: ask_capability(Asked("8.9"), "local"))

    assert facts_of(found).sm == "8.9"


def test_a_driver_that_takes_the_worker_with_it_leaves_it_unknown() -> None:
    assert ask_capability(Asked(None), "local") == ""


def test_this_machine_asks_a_process_of_its_own_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(environment, "describe_machine", lambda: PC)
    monkeypatch.setattr(local, "ask_capability", lambda worker, about: asked.append(type(worker).__name__) or "8.9")
    local._capability.cache_clear()

    with links.connect_device(links.LOCAL) as connection:
        found = {connection.environment.cuda_capability, connection.environment.cuda_capability}
    local._capability.cache_clear()

    assert (found, asked) == ({"8.9"}, ["Child"])
