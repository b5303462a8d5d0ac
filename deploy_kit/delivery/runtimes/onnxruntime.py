"""Bundles for ONNX Runtime: any version that reads the file's operator set and IR version."""

from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.base.versions import version_numbers
from deploy_kit.delivery.runtimes import FILES, PackedRuntime, VersionNeed
from deploy_kit.graph import lint, onnx_file
from deploy_kit.recipe.compatibility import compatibility_table
from deploy_kit.records.artifacts import Artifact

_EXPORT = "get the bundle from a source that you trust; of your own network, export it without control flow"
_MOST_MACS = 10**12  # of one image: 160 times those of DenseNet-264 at 224×224 px


def verify(path: Path) -> None:
    """Refuse a graph that is no network's: see `onnx_file.load`; one that loops, or that computes beyond any DenseNet.

    Raises:
        InputError: It is one.
    """
    model = onnx_file.load(path)
    looping = next(
        (node for node in onnx_file.all_nodes(model) if node.op_type in ("Loop", "Scan", "SequenceMap")), None
    )
    if looping is not None:
        raise InputError(f"{path}: has a {looping.op_type}, which repeats as often as it likes", hint=_EXPORT)
    if (macs := onnx_file.macs(model)) > _MOST_MACS:
        raise InputError(f"{path}: {macs:.2g} multiply-accumulates, at most {_MOST_MACS:.0e} are run", hint=_EXPORT)


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
    verify=verify,
    needs=needs,
    triton='backend: "onnxruntime"',
    cpp=FILES / "onnxruntime" / "cpp",
)
