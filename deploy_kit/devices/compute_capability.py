"""The compute capability of a PC's NVIDIA GPU: only its driver knows it, and that is asked in a worker.

CUDA stays started in a process that has asked it anything, so neither this process nor one that is timed asks.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from deploy_kit.base.errors import EngineCrashError
from deploy_kit.records.measurements import Environment


class _Asked(Protocol):
    def ask(self, op: str, about: str) -> dict[str, Any]: ...


def with_capability(found: Environment, ask: Callable[[], str]) -> Environment:
    """Add the capability where there is a GPU whose files do not tell it (a Jetson's do)."""
    return replace(found, cuda_capability=ask()) if found.gpu and not found.cuda_capability else found


def ask_capability(worker: _Asked, about: str) -> str:
    """Ask a worker; empty where the driver does not answer, or takes the worker with it."""
    try:
        return str(worker.ask("cuda_capability", about)["capability"])
    except EngineCrashError:
        return ""
