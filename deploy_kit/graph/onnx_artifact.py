"""An ONNX file of the store → its passport: what every stage that writes a graph returns."""

from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.whole_files import sha256_of
from deploy_kit.graph import onnx_file
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess
from deploy_kit.records.made_by import MadeBy

if TYPE_CHECKING:
    import onnx_ir as ir


def onnx_artifact(
    file: Path,
    home: str,
    *,
    name: str,
    stage: str,
    parent: str,
    preprocess: Preprocess | BareInput,
    made_by: MadeBy,
    model: "ir.Model | None" = None,
) -> Artifact:
    """Describe an ONNX file that a stage has written.

    Args:
        file: The file.
        home: Folder of the file as the store will keep it, relative to the store.
        name: Short name within a recipe, e.g. ``int8``.
        stage: Stage that wrote it.
        parent: sha256 of what it was made from.
        preprocess: How images become its input.
        made_by: What decided it.
        model: The graph that was written; read from the file where it is not given.
    """
    model = onnx_file.load(file) if model is None else model
    return Artifact(
        kind="onnx",
        name=name,
        path=f"{home}/{file.name}",
        sha256=sha256_of(file),
        size_bytes=file.stat().st_size,
        precision=onnx_file.precision(model),
        inputs=onnx_file.specs(onnx_file.inputs(model)),
        outputs=onnx_file.specs(tuple(model.graph.outputs)),
        preprocess=preprocess,
        stage=stage,
        parent=parent,
        made_by=made_by,
    )
