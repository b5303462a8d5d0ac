"""A folder is the registry and a file is the entry: ``engines/openvino.py`` holds ``ENGINE`` and is named 'openvino'.

Third parties register through entry points of the group ``deploy_kit.<folder>``, e.g. ``deploy_kit.passes`` for
``deploy_kit/graph/passes``. Files that start with an underscore are not entries. A file whose plain name would
shadow a module of the standard library ends with an underscore, which is not part of the name.
"""

import functools
import importlib
import pkgutil
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from deploy_kit.base.errors import UnknownNameError, nearest

T = TypeVar("T")


class Catalogue(Generic[T]):
    """The entries of one kind, imported on first use."""

    def __init__(self, package: str, constant: str, noun: str) -> None:
        """Look into `package` for modules that hold `constant`; call an entry `noun` in messages."""
        self.package = package
        self.constant = constant
        self.noun = noun

    @property
    def group(self) -> str:
        """The group of entry points that third parties register under: stable, wherever the folder stands."""
        root, *_, folder = self.package.split(".")
        return f"{root}.{folder}"

    @functools.cache  # noqa: B019  # a catalogue lives as long as the program
    def names(self) -> tuple[str, ...]:
        """List all entries by name, sorted; imports none of them."""
        folder = importlib.import_module(self.package).__path__
        own = {module.name.rstrip("_") for module in pkgutil.iter_modules(folder) if not module.name.startswith("_")}
        return tuple(sorted(own | self._foreign().keys()))

    @functools.cache  # noqa: B019  # looking them up takes milliseconds, and passes are looked up by the dozen
    def _foreign(self) -> dict[str, EntryPoint]:
        """List the entries of third parties."""
        return {point.name: point for point in entry_points(group=self.group)}

    def get(self, name: str) -> T:
        """Import one entry.

        Raises:
            UnknownNameError: No entry has this name; the hint names the nearest.
        """
        if name not in self.names():
            raise UnknownNameError(f"no {self.noun} is called '{name}'", hint=nearest(name, self.names()))
        if name in self._foreign():
            return cast("T", self._foreign()[name].load())
        shadows = name in sys.stdlib_module_names
        module = importlib.import_module(f"{self.package}.{name}{'_' * shadows}")
        return cast("T", getattr(module, self.constant))
