"""Bundles for TensorRT: the version that built the plan, or later ones where it was built to be compatible."""

from pathlib import Path

from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.records.artifacts import Artifact


def needs(engine: Artifact, graph: Path, built_with: str) -> VersionNeed:
    """Return the version that built the plan, by its passport."""
    compatible = engine.built is not None and "version" in engine.built.compatible
    source = "built to load in later versions" if compatible else "a plan fits the version that built it"
    return VersionNeed(minimum=built_with, exact=not compatible, source=source)


RUNTIME = PackedRuntime(
    program=FILES / "nvidia" / "engine.py",
    needs=needs,
    triton='platform: "tensorrt_plan"',
    packs_graph=True,
)
