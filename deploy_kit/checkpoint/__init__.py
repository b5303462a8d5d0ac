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

from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.record import Checkpoint
from deploy_kit.recipe import SourceTable

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
        preprocess=contents.preprocess,
        classes=contents.classes,
        container=contents.kind,
        remarks=(*contents.remarks, *parsed.remarks),
    )


def stated_facts(source: SourceTable) -> StatedFacts:
    """Return what a recipe states about its checkpoint."""
    values = {name: getattr(source, name) for name in _FACTS if getattr(source, name) is not None}
    return StatedFacts(
        facts=ArchitectureFacts(**values),
        head=source.head,
        ignore=source.ignore,
        strict=source.strict,
        state_key=source.state_key,
        probe=source.probe,
    )
