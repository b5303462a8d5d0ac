"""The checkpoint: a DenseNet file → one torch module, its facts, and where each fact comes from.

formats        bytes → named tensors, safely; nothing in a file is executed
contents       what a file holds: the record that every format yields
architecture   named tensors → DenseNetSpec and canonical names; what shapes cannot say, decided by the best source
network        DenseNetSpec → a torch module, the same as equations (the second opinion), and ONNX
facts          facts that shapes cannot give, each with its source
record         the checkpoint as it is handed on
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.record import Checkpoint
from deploy_kit.recipe import SourceTable
from deploy_kit.records.densenet import DenseNetSpec

if TYPE_CHECKING:
    from deploy_kit.checkpoint.architecture.graph_witness import Witness
    from deploy_kit.checkpoint.contents import Contents, Sidecar

__all__ = ["ArchitectureFacts", "Checkpoint", "StatedFacts", "read_checkpoint", "stated_facts"]

_FACTS = frozenset(entry.name for entry in dataclasses.fields(ArchitectureFacts)) - {"source"}


def read_checkpoint(path: Path, stated: StatedFacts | None = None) -> Checkpoint:
    """Read a checkpoint; never runs what a file brings with it.

    Args:
        path: The file; its format is known by its bytes, whatever its extension.
        stated: What a person states about it.

    Raises:
        CheckpointError: Not a DenseNet checkpoint that this version can read, or one that leaves a question open.
        InputError: The file or the probe is missing or cannot be read.
    """
    import torch

    from deploy_kit.checkpoint.architecture import graph_witness, probe, structure
    from deploy_kit.checkpoint.formats import container
    from deploy_kit.checkpoint.network.densenet_module import DenseNet
    from deploy_kit.checkpoint.network.equations import Equations

    stated = stated or StatedFacts()
    contents = container.read_contents(path, state_key=stated.state_key)
    parsed = structure.parse_structure(contents, str(path), stated)
    if stated.probe is not None:
        parsed = probe.choose(parsed, Path(stated.probe))
    witness = None
    if contents.forward is not None:
        parsed, witness = graph_witness.settle(parsed, contents.forward, str(path))
    beside, told = _beside(contents, parsed.spec, str(path), asked=not stated.preprocess_stated)
    with torch.device("meta"):  # no initial weights are drawn: they cost more than all the rest
        model = DenseNet(parsed.spec)
    model.load_state_dict(parsed.tensors, strict=True, assign=True)
    model.eval().requires_grad_(False)
    return Checkpoint(
        model=model,
        spec=parsed.spec,
        equations=Equations(parsed.spec, parsed.names, parsed.originals, channels_last=parsed.channels_last),
        evidence=parsed.evidence,
        witness=witness,
        preprocess=contents.preprocess or (None if beside is None else beside.preprocess),
        classes=contents.classes or (None if beside is None else beside.classes),
        sides=_sides(witness, beside),
        container=contents.kind,
        remarks=(*contents.remarks, *parsed.remarks, *told),
    )


def _sides(witness: "Witness | None", beside: "Sidecar | None") -> tuple[tuple[int, ...], str] | None:
    """Return the sides of the input that the file's graph or a file beside it states, and which."""
    if witness is not None and witness.sides is not None:
        return witness.sides, "the file's own graph"
    return (beside.sides, beside.source) if beside is not None and beside.sides is not None else None


def _beside(
    contents: "Contents", spec: DenseNetSpec, where: str, *, asked: bool
) -> "tuple[Sidecar | None, tuple[str, ...]]":
    """Hold what lies beside a checkpoint against it; what is of another network is not read.

    Raises:
        CheckpointError: It states another preprocessing than the file, and nobody says which holds.
    """
    beside = contents.beside
    if beside is None:
        return None, ()
    channels = beside.channels if beside.preprocess is None else beside.preprocess.channels
    for what, stated, found in (
        ("channels", channels, spec.in_channels),
        ("classes", None if beside.classes is None else len(beside.classes), spec.classes),
        ("axes", None if beside.sides is None else len(beside.sides), spec.ndim),
    ):
        if stated is not None and stated != found:
            return None, (f"'{beside.source}' beside it is of {stated} {what}, the network has {found}: not read",)
    ours, theirs = contents.preprocess, beside.preprocess
    if asked and ours is not None and theirs is not None and ours != theirs:
        raise CheckpointError(
            f"{where}: it states another preprocessing than '{beside.source}' beside it: {ours}; {theirs}",
            hint="say which holds: --input 224x224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
        )
    names = [name for name, value in (("preprocessing", theirs), ("classes", beside.classes), ("input size",
             beside.sides)) if value is not None]  # fmt: skip
    names += [name for name, _ in beside.facts.stated()]
    return beside, (f"{', '.join(names)}: taken from '{beside.source}' beside it",)


def stated_facts(source: SourceTable) -> StatedFacts:
    """Return what a recipe states about its checkpoint."""
    values = {name: getattr(source, name) for name in _FACTS if getattr(source, name) is not None}
    return StatedFacts(
        preprocess_stated=source.preprocess is not None,
        facts=ArchitectureFacts(**values),
        head=source.head,
        ignore=source.ignore,
        strict=source.strict,
        state_key=source.state_key,
        probe=source.probe,
    )
