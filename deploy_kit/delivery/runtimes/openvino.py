"""Bundles for OpenVINO: the release that wrote the IR, and later ones."""

from pathlib import Path

from deploy_kit.base.versions import version_numbers
from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.records.artifacts import Artifact


def needs(engine: Artifact, graph: Path, built_with: str) -> VersionNeed:
    """Return the release that wrote the IR: an earlier one may not know its operators."""
    release = ".".join(map(str, version_numbers(built_with)[:2]))
    return VersionNeed(minimum=release, exact=False, source="the release that wrote the IR")


RUNTIME = PackedRuntime(
    program=FILES / "openvino" / "engine.py",
    needs=needs,
    triton='backend: "openvino"',
    cpp=FILES / "openvino" / "cpp",
)
