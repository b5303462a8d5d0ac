"""Catalogues: a folder is the registry and a file is an entry; ``engines/openvino.py`` with ``ENGINE`` is 'openvino'.

Third parties register entries through entry points of the group ``deploy_kit.<folder>``, e.g. ``deploy_kit.passes`` for
``deploy_kit/graph/passes``. Files that start with an underscore are not entries. A file whose plain name would shadow a
module of the standard library ends with an underscore, which is not part of the name.
"""

import functools
import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from deploy_kit.base.errors import MissingPackageError, UnknownNameError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")


class Catalogue(Generic[T]):
    """The entries of one kind, each imported on first use."""

    def __init__(
        self, package: str, constant: str, noun: str, *, former_groups: tuple[str, ...] = (), closed: bool = False
    ) -> None:
        """Create a catalogue.

        Args:
            package: Full name of the package whose modules are the entries.
            constant: Name of the constant in a module that holds the entry.
            noun: Word for an entry in messages, e.g. ``engine``.
            former_groups: Earlier names of `group`, under which entries are found too.
            closed: Whether third parties have no entries in it; looking for them takes milliseconds.
        """
        self.package = package
        self.constant = constant
        self.noun = noun
        self.former_groups = former_groups
        self.closed = closed

    @property
    def group(self) -> str:
        """Group of entry points for third parties; it does not change when the folder moves within the package."""
        root, *_, folder = self.package.split(".")
        return f"{root}.{folder}"

    @functools.cache  # noqa: B019  # a catalogue lives as long as the program
    def names(self) -> tuple[str, ...]:
        """List the names of all entries, sorted, without importing any."""
        folder = importlib.import_module(self.package).__path__
        own = {module.name.rstrip("_") for module in pkgutil.iter_modules(folder) if not module.name.startswith("_")}
        return tuple(sorted(own | self._foreign().keys()))

    @functools.cache  # noqa: B019  # looking them up takes milliseconds, and passes are looked up by the dozen
    def _foreign(self) -> "dict[str, EntryPoint]":
        """List the entries of third parties by name."""
        if self.closed:
            return {}
        from importlib.metadata import entry_points

        groups = (*self.former_groups, self.group)
        return {point.name: point for group in groups for point in entry_points(group=group)}

    def get(self, name: str) -> T:
        """Import one entry.

        Raises:
            UnknownNameError: No entry has this name; the hint gives the nearest one.
            MissingPackageError: A third party's entry cannot be imported.
        """
        if name not in self.names():
            raise UnknownNameError(f"no {self.noun} is called '{name}'", hint=nearest(name, self.names()))
        if name in self._foreign():
            return self._load(self._foreign()[name])
        shadows = name in sys.stdlib_module_names
        module = importlib.import_module(f"{self.package}.{name}{'_' * shadows}")
        return cast("T", getattr(module, self.constant))

    def _load(self, point: "EntryPoint") -> T:
        try:
            return cast("T", point.load())
        except (ImportError, AttributeError) as error:
            owner = point.dist.name if point.dist else point.module
            raise MissingPackageError(
                f"{self.noun} '{point.name}' of package '{owner}' ({point.value}) cannot be imported: {error}",
                hint=f"install what it needs, or remove it: pip uninstall {owner}",
            ) from error
