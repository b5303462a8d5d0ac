"""The checkpoint: a DenseNet file → one torch module, its facts and where each fact came from.

container   bytes → named tensors, safely
structure   named tensors → DenseNetSpec and canonical names
model       DenseNetSpec → torch.nn.Module
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.records import DenseNetSpec, Preprocess

if TYPE_CHECKING:
    from deploy_kit.checkpoint.model import DenseNet


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that has been read.

    Attributes:
        model: In eval mode, float32, weights loaded strictly.
        spec: Its architecture.
        preprocess: Carried by the file; None where it is not.
        container: The file format.
        remarks: What was done to the names and types on the way in.
    """

    model: "DenseNet"
    spec: DenseNetSpec
    preprocess: Preprocess | None
    container: str
    remarks: tuple[str, ...]


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; never runs what a file brings with it.

    Raises:
        CheckpointError: Not a DenseNet checkpoint that this version can read.
        InputError: Missing.
    """
    from deploy_kit.checkpoint import container, structure
    from deploy_kit.checkpoint.model import DenseNet

    contents = container.read(path)
    parsed = structure.parse(contents, str(path))
    model = DenseNet(parsed.spec)
    model.load_state_dict(parsed.tensors, strict=True)
    model.eval().requires_grad_(False)
    return Checkpoint(
        model=model,
        spec=parsed.spec,
        preprocess=contents.preprocess,
        container=contents.kind,
        remarks=(*contents.remarks, *parsed.remarks),
    )
