"""A folder is the registry and a file is the entry: ``engines/openvino.py`` holds ``ENGINE`` and is named 'openvino'.

Third parties register through entry points of the group named after the package, e.g. ``deploy_kit.engines``.
Files that start with an underscore are not entries.
"""

import functools
import importlib
import pkgutil
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from deploy_kit.errors import UnknownNameError, nearest

T = TypeVar("T")


class Catalogue(Generic[T]):
    """The entries of one kind, imported on first use."""

    def __init__(self, package: str, constant: str, noun: str) -> None:
        """Look into `package` for modules that hold `constant`; call an entry `noun` in messages."""
        self.package = package
        self.constant = constant
        self.noun = noun

    @functools.cache  # noqa: B019  # a catalogue lives as long as the program
    def names(self) -> tuple[str, ...]:
        """List all entries by name, sorted; imports none of them."""
        folder = importlib.import_module(self.package).__path__
        own = {module.name for module in pkgutil.iter_modules(folder) if not module.name.startswith("_")}
        return tuple(sorted(own | self._foreign().keys()))

    @functools.cache  # noqa: B019  # looking them up takes milliseconds, and passes are looked up by the dozen
    def _foreign(self) -> dict[str, EntryPoint]:
        """List the entries of third parties."""
        return {point.name: point for point in entry_points(group=self.package)}

    def get(self, name: str) -> T:
        """Import one entry.

        Raises:
            UnknownNameError: No entry has this name; the hint names the nearest.
        """
        if name not in self.names():
            raise UnknownNameError(f"no {self.noun} is called '{name}'", hint=nearest(name, self.names()))
        if name in self._foreign():
            return cast("T", self._foreign()[name].load())
        module = importlib.import_module(f"{self.package}.{name}")
        return cast("T", getattr(module, self.constant))
