"""The checkpoint: a DenseNet file → one torch module, its facts and where each fact came from.

container   bytes → named tensors, safely
structure   named tensors → DenseNetSpec and canonical names: leaves, units, chain, body, heads
decide      what shapes cannot say: attributes, gaps, evidence, conventions, the paper; probe, where one is given
model       DenseNetSpec → torch.nn.Module
equations   the same once more on the file's own tensors: the second opinion
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.recipe import SourceTable
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import DenseNetSpec

if TYPE_CHECKING:
    from deploy_kit.checkpoint.architecture.evidence import Evidence
    from deploy_kit.checkpoint.network.densenet_module import DenseNet
    from deploy_kit.checkpoint.network.equations import Equations

__all__ = ["ArchitectureFacts", "Checkpoint", "StatedFacts", "read_checkpoint", "stated_facts"]

_FACTS = frozenset(entry.name for entry in dataclasses.fields(ArchitectureFacts)) - {"source"}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint that has been read.

    Attributes:
        model: In eval mode, float32, weights loaded strictly.
        spec: Its architecture.
        equations: The same function on the file's own tensors, independent of `model`.
        evidence: What its BN statistics say.
        preprocess: Carried by the file; None where it is not.
        classes: Names of its classes; None where the file has none.
        container: The file format.
        remarks: What was done to the names and types on the way in, and what nothing decides.
    """

    model: "DenseNet"
    spec: DenseNetSpec
    equations: "Equations"
    evidence: "Evidence"
    preprocess: Preprocess | None
    classes: tuple[str, ...] | None
    container: str
    remarks: tuple[str, ...]


def read_checkpoint(path: Path, asked: StatedFacts | None = None) -> Checkpoint:
    """Read a checkpoint; never runs what a file brings with it.

    Args:
        path: Its place.
        asked: What a person says of it.

    Raises:
        CheckpointError: Not a DenseNet checkpoint that this version can read, or one that leaves a question open.
        InputError: Missing; or the probe is.
    """
    import torch

    from deploy_kit.checkpoint.architecture import probe, structure
    from deploy_kit.checkpoint.formats import container
    from deploy_kit.checkpoint.network.densenet_module import DenseNet
    from deploy_kit.checkpoint.network.equations import Equations

    asked = asked or StatedFacts()
    contents = container.read_contents(path, state_key=asked.state_key)
    parsed = structure.parse_structure(contents, str(path), asked)
    if asked.probe is not None:
        parsed = probe.choose(parsed, Path(asked.probe))
    with torch.device("meta"):  # no initial weights are drawn: they cost more than all the rest
        model = DenseNet(parsed.spec)
    model.load_state_dict(parsed.tensors, strict=True, assign=True)
    model.eval().requires_grad_(False)
    return Checkpoint(
        model=model,
        spec=parsed.spec,
        equations=Equations(parsed.spec, parsed.names, parsed.originals, channels_last=parsed.channels_last),
        evidence=parsed.evidence,
        preprocess=contents.preprocess,
        classes=contents.classes,
        container=contents.kind,
        remarks=(*contents.remarks, *parsed.remarks),
    )


def stated_facts(source: SourceTable) -> StatedFacts:
    """Give what a recipe says of its checkpoint."""
    stated = {name: getattr(source, name) for name in _FACTS if getattr(source, name) is not None}
    return StatedFacts(
        facts=ArchitectureFacts(**stated),
        head=source.head,
        ignore=source.ignore,
        strict=source.strict,
        state_key=source.state_key,
        probe=source.probe,
    )
