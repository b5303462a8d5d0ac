"""The checkpoint as a record: what `read_checkpoint` returns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import DenseNetSpec

if TYPE_CHECKING:
    from deploy_kit.checkpoint.architecture.evidence import Evidence
    from deploy_kit.checkpoint.architecture.graph_witness import Witness
    from deploy_kit.checkpoint.contents import Container
    from deploy_kit.checkpoint.network.densenet_module import DenseNet
    from deploy_kit.checkpoint.network.equations import Equations


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that has been read.

    Attributes:
        model: The network in eval mode, float32, weights loaded strictly.
        spec: Its architecture.
        equations: The same function on the file's own tensors, independent of `model`.
        evidence: What its BN statistics say.
        witness: The forward pass that the file states, beside `model`; None where it states none.
        preprocess: Preprocessing that the file carries; None where it carries none.
        classes: Names of its classes; None where the file has none.
        sides: Sides of its input in px as the file's graph or a file beside it states them, and which; None where none
            does.
        container: The file format.
        remarks: Remarks for people: what was done to names and types on the way in, and what nothing decides.
    """

    model: "DenseNet"
    spec: DenseNetSpec
    equations: "Equations"
    evidence: "Evidence"
    witness: "Witness | None"
    preprocess: Preprocess | None
    classes: tuple[str, ...] | None
    sides: tuple[tuple[int, ...], str] | None
    container: "Container"
    remarks: tuple[str, ...]
