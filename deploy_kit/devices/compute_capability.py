"""Compute capability of a PC's NVIDIA GPU, which only the driver knows. It is asked in a worker.

CUDA stays initialized in a process that has asked it anything, so neither the host nor a process that is timed asks.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.records.measurements import Environment


class _Worker(Protocol):
    def ask(self, op: str, about: str) -> dict[str, Any]: ...


def with_capability(environment: Environment, ask: Callable[[], str]) -> Environment:
    """Add the compute capability to an environment that has a GPU and lacks it; a Jetson's files contain it.

    Args:
        environment: Description of a machine.
        ask: Asks the driver of that machine.
    """
    lacking = environment.gpu and not environment.cuda_capability
    return replace(environment, cuda_capability=ask()) if lacking else environment


def ask_capability(worker: _Worker, about: str) -> str:
    """Ask a worker for the compute capability; empty where the driver does not answer, or crashes the worker."""
    try:
        return str(worker.ask("cuda_capability", about)["capability"])
    except EngineCrashError:
        return ""
