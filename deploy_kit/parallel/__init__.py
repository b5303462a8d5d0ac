"""Where computation that needs no particular machine is done: in this process, or on the workers of a Ray cluster."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Workers(Protocol):
    """Computes independent items; the results are the same, bit for bit, wherever they are computed."""

    @property
    def n(self) -> int:
        """Number of items computed at a time."""

    @property
    def place(self) -> str:
        """What another process opens to use the same workers (`ray_workers.open_workers`); empty for this process."""

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Compute each item and return the results in the order of the items.

        Args:
            work: A function of a module, so that other processes find it.
            items: Its arguments; files that they name are read where the work is done.

        Raises:
            DeployKitError: What `work` raised, or the workers cannot do it.
        """


class OneProcess:
    """Computes in this process, one item after the other."""

    n, place = 1, ""

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Compute each item when its result is asked for."""
        return map(work, items)


ONE_PROCESS = OneProcess()
