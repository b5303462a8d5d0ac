"""Bundles for TensorRT-RTX: the version that built the plan; Triton has no backend for it."""

from pathlib import Path

from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.records.artifacts import Artifact


def needs(engine: Artifact, graph: Path, built_with: str) -> VersionNeed:
    """Return the version that built the plan."""
    return VersionNeed(minimum=built_with, exact=True, source="a plan fits the version that built it")


RUNTIME = PackedRuntime(program=FILES / "nvidia" / "engine.py", needs=needs, packs_graph=True)
