"""Facts of an architecture that shapes cannot give, and where each comes from.

`formats` fills in what a file states (metadata, pickled attributes, TorchScript or torch.export graphs, Keras configs),
the command line what a person states; `architecture.decide` weighs them against each other.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from deploy_kit.records.densenet import (
    Activation,
    FeatureNorm,
    HeadActivation,
    HeadPool,
    Order,
    SkipOrder,
    StemPool,
    TransitionPool,
    UpCrop,
    Upsampling,
)

Concat = Literal["append", "prepend"]
SourceKind = Literal[
    "flag",
    "file",
    "index_gap",
    "statistics",
    "family",
    "file_name",
    "convention",
    "default",
    "carried",
    "probe",
    "graph",
]
_GUESSES: frozenset[SourceKind] = frozenset({"family", "file_name", "convention", "default", "carried"})


@dataclass(frozen=True)
class Source:
    """Where a fact comes from.

    Attributes:
        kind: What decides: a ``flag``, the ``file``'s own statement, an ``index_gap`` in its names, BN ``statistics``,
            the ``family`` known by its key names, the ``file_name``, a ``convention`` for such stems, a ``default`` (of
            the paper or the framework), a value ``carried`` over from the dense layers, a ``probe``, or the outputs of
            the file's own ``graph``.
        text: The same for people; no code reads it.
    """

    kind: SourceKind
    text: str

    @property
    def is_guess(self) -> bool:
        """Whether nothing in the file proves the fact, so that a probe may still change it."""
        return self.kind in _GUESSES


@dataclass(frozen=True, kw_only=True)
class ArchitectureFacts:
    """Facts of an architecture; None where the source is silent.

    Attributes:
        stem_stride: Stride of the (first) stem convolution; one number for all axes, or one for each.
        stem_pool: Pool that ends the stem.
        eps: Epsilon of every BN.
        hidden_eps: Epsilon of BNs between linear layers of the head, where it is another one.
        concat: Whether a dense layer's new features come after the old ones (the paper) or before them.
        dense_order: Whether a dense layer's BNs come before their activations or behind them.
        transition_order: The same of a transition's BN.
        final_order: The same of the last BN.
        hidden_order: The same of BNs between linear layers of the head.
        transition_relu: Whether a ReLU stands between a transition's BN and its convolution.
        transition_pool: How a transition halves the map.
        final_relu: Whether a ReLU follows the last BN.
        activation: Activation of the dense layers.
        outer_activation: Activation of stem, transitions and end.
        stem_activation: Activation of the stem, where it is another one.
        hidden_activation: Activation between linear layers of the head.
        slope: Slope of leaky activations below zero.
        stem_slope: The same in the stem, where it is another one.
        outer_slope: The same outside of dense layers, likewise.
        hidden_slope: The same between linear layers, likewise.
        head_pool: How the last map becomes a vector.
        feature_norm: Whether that vector is divided by its Euclidean norm.
        head_activation: What follows the last linear layer in the file's own forward pass.
        skip_order: Whether a decoder's enlarged maps come before the encoder's (FC-DenseNet's code) or behind them.
        up_crop: Which pixels stay of a transposed convolution's odd number: from the start (its center crop), or to the
            end (padding 1, output padding 1).
        upsampling: Interpolation of a decoder that resizes.
        map_scale: How many times larger the output of a feature pyramid is than its own maps.
        source: Where the facts come from.
    """

    stem_stride: int | tuple[int, ...] | None = None
    stem_pool: StemPool | None = None
    eps: float | None = None
    hidden_eps: float | None = None
    concat: Concat | None = None
    transition_relu: bool | None = None
    transition_pool: TransitionPool | None = None
    final_relu: bool | None = None
    activation: Activation | None = None
    outer_activation: Activation | None = None
    stem_activation: Activation | None = None
    hidden_activation: Activation | None = None
    slope: float | None = None
    stem_slope: float | None = None
    outer_slope: float | None = None
    hidden_slope: float | None = None
    dense_order: Order | None = None
    transition_order: Order | None = None
    final_order: Order | None = None
    hidden_order: Order | None = None
    head_pool: HeadPool | None = None
    feature_norm: FeatureNorm | None = None
    head_activation: HeadActivation | None = None
    skip_order: SkipOrder | None = None
    up_crop: UpCrop | None = None
    upsampling: Upsampling | None = None
    map_scale: int | None = None
    source: Source = Source("file", "stated in the file")

    def stated(self) -> Iterator[tuple[str, Any]]:
        """Yield (name, value) of each fact that is stated."""
        for entry in dataclasses.fields(self):
            value = getattr(self, entry.name)
            if entry.name != "source" and value is not None:
                yield entry.name, value


@dataclass(frozen=True, kw_only=True)
class StatedFacts:
    """What a person states about a checkpoint.

    Attributes:
        facts: Facts of the architecture.
        head: Module of the head to take; ``none`` for the pooled features.
        ignore: Modules or tensors to leave out.
        strict: Whether to refuse a guess that changes the numbers.
        state_key: Which state dict to take, where a file has several.
        preprocess_stated: Whether the preprocessing is stated too, so that what files say of it does not matter.
        probe: An npz file with one ``input`` and its ``logits``, on which open facts are tried.
    """

    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)
    head: str | None = None
    ignore: tuple[str, ...] = ()
    strict: bool = False
    preprocess_stated: bool = False
    state_key: str | None = None
    probe: str | None = None
