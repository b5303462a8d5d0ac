"""Bundles for ONNX Runtime: any version that reads the file's operator set and IR version."""

from pathlib import Path

from deploy_kit.base.versions import version_numbers
from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.graph import lint, onnx_file
from deploy_kit.recipe.compatibility import compatibility_table
from deploy_kit.records.artifacts import Artifact


def needs(engine: Artifact, graph: Path, built_with: str) -> VersionNeed:
    """Return the oldest version that is known to read the graph; the one that built it where none is known."""
    model = onnx_file.load(graph)
    opset, ir = onnx_file.opset(model), model.ir_version or 0
    rows = [row for row in compatibility_table().onnx if row.library == "onnxruntime"]
    reading = [row.since for row in rows if row.opset >= opset and (row.ir or 0) >= ir]
    found = {min(reading, key=version_numbers): f"reads operator set {opset} and IR version {ir}"} if reading else {}
    for requirement, why in lint.needs(model):
        package, _, version = requirement.partition(">=")
        if package == "onnxruntime":
            found[version] = why
    if not found:
        return VersionNeed(minimum=built_with, exact=False, source="the version that built it")
    minimum = max(found, key=version_numbers)
    return VersionNeed(minimum=minimum, exact=False, source=found[minimum])


RUNTIME = PackedRuntime(
    program=FILES / "onnxruntime" / "engine.py",
    needs=needs,
    triton='backend: "onnxruntime"',
    cpp=FILES / "onnxruntime" / "cpp",
)
