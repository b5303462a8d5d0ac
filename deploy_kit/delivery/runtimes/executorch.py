"""Bundles for ExecuTorch: the version that wrote the program, and later ones, which keep reading it."""

from pathlib import Path

from deploy_kit.base.errors import BuildError, InputError
from deploy_kit.base.versions import version_numbers
from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.engines import _pte
from deploy_kit.records.artifacts import Artifact


def verify(path: Path) -> None:
    """Refuse a program that is not whole, or that has parts for another backend than XNNPACK.

    Raises:
        InputError: It is one.
    """
    try:
        _pte.read(path)
    except BuildError as error:
        raise InputError(str(error), hint="get the bundle from a source that you trust") from error


def needs(engine: Artifact, graph: Path, built_with: str) -> VersionNeed:
    """Return the release that wrote the program: an earlier one may not know its operators."""
    release = ".".join(map(str, version_numbers(built_with)[:2]))
    return VersionNeed(minimum=release, exact=False, source="the release that wrote the program")


RUNTIME = PackedRuntime(program=FILES / "executorch" / "engine.py", verify=verify, needs=needs)
