"""What a file, a graph or a person states of an architecture beyond the shapes; each fact with its source.

Shapes and names cannot say these. `container` fills in what the file itself states (metadata, pickled attributes,
TorchScript or torch.export graphs, Keras configs), the command line what a person states; `decide` weighs them.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy_kit.records.densenet import Activation, HeadActivation, HeadPool, StemPool

Concat = Literal["append", "prepend"]
Pool = StemPool


@dataclass(frozen=True, kw_only=True)
class ArchitectureFacts:
    """Facts of an architecture; None where the one who states is silent.

    Attributes:
        stem_stride: Of the (first) stem convolution; one number for all axes, or one for each.
        stem_pool: What ends the stem.
        eps: Of every BN.
        concat: Whether a dense layer's new features come after the old ones (the paper) or before them.
        transition_relu: A ReLU stands between a transition's BN and its convolution.
        transition_pool: How a transition halves the map.
        final_relu: A ReLU follows the last BN.
        activation: Of the dense layers.
        outer_activation: Of stem, transitions and end.
        hidden_activation: Between linear layers of the head.
        slope: Of leaky activations below zero.
        head_pool: How the last map becomes a vector.
        head_activation: What follows the last linear layer in the file's own forward pass.
        source: Who states it, e.g. ``pickled attributes``, ``TorchScript graph``, ``flag``.
    """

    stem_stride: int | tuple[int, ...] | None = None
    stem_pool: Pool | None = None
    eps: float | None = None
    concat: Concat | None = None
    transition_relu: bool | None = None
    transition_pool: Literal["avg", "max"] | None = None
    final_relu: bool | None = None
    activation: Activation | None = None
    outer_activation: Activation | None = None
    hidden_activation: Activation | None = None
    slope: float | None = None
    head_pool: HeadPool | None = None
    head_activation: HeadActivation | None = None
    source: str = "stated in the file"

    def stated(self) -> Iterator[tuple[str, Any]]:
        """Give (name, value) of each fact that is stated."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name != "source" and value is not None:
                yield entry.name, value


@dataclass(frozen=True, kw_only=True)
class StatedFacts:
    """What a person says of a checkpoint.

    Attributes:
        facts: Of the architecture.
        head: Module of the head to take; ``none`` for the pooled features.
        ignore: Modules or tensors to leave out.
        strict: Refuse to guess a fact that changes the numbers.
        state_key: Which state dict to take, where a file has several.
        probe: An npz file with one ``input`` and its ``logits``: what is left open is tried on it.
    """

    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)
    head: str | None = None
    ignore: tuple[str, ...] = ()
    strict: bool = False
    state_key: str | None = None
    probe: str | None = None
