"""Records of slimming: what each channel costs, what was kept, and a search for the fewest channels within a budget.

A divergence here is Kullback and Leibler's, of the softmax from the original network's, in nats a image.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import SpeedUp


@dataclass(frozen=True, kw_only=True)
class ChannelCurve:
    """What it costs to remove the channels between two convolutions, one after the other.

    Attributes:
        name: Name of the layer group, e.g. ``denseblock3.denselayer14``.
        reader: Output of the convolution that reads the channels, by which the place is found in the graph.
        macs: Multiply-accumulates of both convolutions for one image, with all channels.
        order: Channels in the order in which they are removed, all but the last.
        errors: Predicted divergence with the first 0, 1, 2, … of `order` removed and the reader refitted; it assumes
            that nothing else in the network is changed.
        gone: Predicted divergence without the layer, where 0, 1, 2, … of the layers stay whose output it reads; empty
            where it cannot go as a whole.
        producer_macs: Multiply-accumulates of the first convolution, with all channels.
        inputs: Number of channels that the first convolution reads.
        outputs: Number of channels that the second one makes.
        readers: Indices of the curves whose first convolution reads them; empty where the layer cannot go.
        beyond: Multiply-accumulates that other readers need for them.
    """

    name: str
    reader: str
    macs: int
    order: tuple[int, ...]
    errors: tuple[float, ...]
    gone: tuple[float, ...] = ()
    producer_macs: int = 0
    inputs: int = 0
    outputs: int = 0
    readers: tuple[int, ...] = ()
    beyond: int = 0

    @property
    def channels(self) -> int:
        """Number of channels."""
        return len(self.errors)

    def error(self, kept: int) -> float:
        """Return the predicted divergence with this many channels kept."""
        return self.errors[self.channels - kept]

    def left(self, n: int, out: int) -> int:
        """Count the multiply-accumulates with `n` channels kept, where `out` of those that it reads went."""
        gone = self.producer_macs * out // self.inputs if out else 0
        return (self.macs - gone) * n // self.channels

    def kept(self, n: int) -> tuple[int, ...]:
        """List the channels that stay where `n` are kept, in ascending order."""
        return tuple(sorted(set(range(self.channels)) - set(self.order[: self.channels - n])))


@dataclass(frozen=True, kw_only=True)
class ChannelCurves:
    """The curves of a graph: one pass over the images serves every budget.

    Attributes:
        path: Path of the npz file with the sensitivities, relative to the store: array ``i`` is F of curve i.
        sha256: sha256 of that file.
        macs: Multiply-accumulates of the whole graph for one image.
        n_images: Number of images observed.
        curves: A curve for each place, in graph order.
        refused: (reason, number of convolutions) for those whose channels cannot be removed.
        seconds: Duration of the pass.
        peak_memory_mib: Peak memory of its process, in MiB.
    """

    path: str
    sha256: str
    macs: int
    n_images: int
    curves: tuple[ChannelCurve, ...]
    refused: tuple[tuple[str, int], ...]
    seconds: float
    peak_memory_mib: int

    def cost(self, kept: Sequence[int]) -> int:
        """Count the multiply-accumulates of the graph with so many channels kept at each place."""
        whole = self.macs - sum(curve.macs for curve in self.curves)
        beyond = sum(curve.beyond for curve, n in zip(self.curves, kept, strict=True) if not n)
        return whole - beyond + sum(left(self.curves, kept))


def left(curves: Sequence[ChannelCurve], kept: Sequence[int]) -> list[int]:
    """Count the multiply-accumulates of each place with so many channels kept: it reads nothing of layers that went."""
    lost = [0] * len(curves)
    for curve, n in zip(curves, kept, strict=True):
        for reader in curve.readers:
            lost[reader] += 0 if n else curve.outputs
    return [curve.left(n, out) for curve, n, out in zip(curves, kept, lost, strict=True)]


def errors(curves: Sequence[ChannelCurve], kept: Sequence[int]) -> list[float]:
    """Return the predicted divergence of each place with so many channels kept."""
    stay = [0] * len(curves)
    for curve, n in zip(curves, kept, strict=True):
        for reader in curve.readers:
            stay[reader] += 1 if n else 0
    return [
        curve.error(n) if n else curve.gone[min(stays, len(curve.gone) - 1)]
        for curve, n, stays in zip(curves, kept, stay, strict=True)
    ]


@dataclass(frozen=True, kw_only=True)
class Price:
    """What layers cost, for an allocation: a + b · multiply-accumulates for each that is there.

    Attributes:
        unit: Unit of a cost: ``multiply-accumulates``, or ``ms`` of one run.
        fixed: a of each layer, which it costs with however few channels.
        each: b of each layer, for one multiply-accumulate.
        beyond: b of all other layers.
        source: Where the costs come from, for a reader.
        misses: Root mean square of what the lines miss of the measured times of layers, as a share of their mean.
    """

    unit: str
    fixed: tuple[float, ...]
    each: tuple[float, ...]
    beyond: float
    source: str = ""
    misses: float = 0.0

    @classmethod
    def of_macs(cls, curves: ChannelCurves) -> "Price":
        """Return multiply-accumulates as the price."""
        n = len(curves.curves)
        return cls(unit="multiply-accumulates", fixed=(0.0,) * n, each=(1.0,) * n, beyond=1.0)

    @property
    def words(self) -> str:
        """What was saved, and how well it is known."""
        measured = f" of {self.source} (a + b · MACs misses the times of layers by {100 * self.misses:.1f} %)"
        return f"{self.unit}{measured * bool(self.source)}"

    def layer(self, index: int, macs: int, *, present: bool) -> float:
        """Return the cost of a layer."""
        return self.fixed[index] * present + self.each[index] * macs

    def cost(self, curves: ChannelCurves, kept: Sequence[int]) -> float:
        """Return the cost of the layers whose channels can be removed, and of what others read of them."""
        macs = left(curves.curves, kept)
        own = sum(self.layer(i, one, present=n > 0) for i, (one, n) in enumerate(zip(macs, kept, strict=True)))
        return own + self.beyond * sum(curve.beyond for curve, n in zip(curves.curves, kept, strict=True) if n)


@dataclass(frozen=True, kw_only=True)
class SlimmedLayer:
    """One place of a slimmed graph.

    Attributes:
        name: Name of the layer group.
        channels: Number of channels before.
        kept: Number of channels that were kept; 0 where the whole layer went.
        macs_before: Multiply-accumulates of both convolutions before.
        macs_after: Multiply-accumulates of both convolutions after.
        predicted: Divergence in nats that the curve predicts for this layer alone.
        seen: Divergence in nats that the layer's output differs by, weighted as `predicted` is, once everything before
            it was slimmed and it was refitted; on the images it was fitted to. Of a layer that went it is what its
            output was worth, before its readers make up for it.
    """

    name: str
    channels: int
    kept: int
    macs_before: int
    macs_after: int
    predicted: float
    seen: float


@dataclass(frozen=True, kw_only=True)
class Slimmed:
    """Result of the stage `slim`: another network than the checkpoint's.

    Attributes:
        onnx: The slimmed graph.
        macs_before: Multiply-accumulates for one image before.
        macs_after: Multiply-accumulates for one image after.
        layers: What was kept, in graph order.
        n_images: Number of images that the weights were refitted to.
        seconds: Duration of the refits, and of further training.
        peak_memory_mib: Peak memory of their process, in MiB.
        distilled: What further training did; empty where there was none.
        price: What the allocation saved; empty in records of earlier versions: multiply-accumulates.
    """

    onnx: Artifact
    macs_before: int
    macs_after: int
    layers: tuple[SlimmedLayer, ...]
    n_images: int = 0
    seconds: float = 0.0
    peak_memory_mib: int = 0
    distilled: str = ""
    price: str = ""

    @property
    def share(self) -> float:
        """Share of the multiply-accumulates that are left, in 0..1."""
        return self.macs_after / self.macs_before

    @property
    def words(self) -> str:
        """Sentence that marks the network as another one."""
        removed = sum(layer.channels - layer.kept for layer in self.layers)
        whole = sum(1 for layer in self.layers if not layer.kept)
        return (
            f"slimmed: {self.macs_after:,} of {self.macs_before:,} multiply-accumulates ({self.share:.2f}), {removed} "
            f"of {sum(layer.channels for layer in self.layers)} channels removed"
            f"{f', {whole} whole layers among them' * bool(whole)}"
            f"{', ' * bool(self.distilled)}{self.distilled}: another network than the checkpoint's"
        )


@dataclass(frozen=True, kw_only=True)
class SlimTrial:
    """A slimmed graph held against the original network's answers.

    Attributes:
        asked: Share of the multiply-accumulates that was asked for, in 0..1.
        share: Share that is left, in 0..1.
        images: Name of the image set.
        n: Number of images.
        kl: Mean divergence in nats.
        lost: Number of images that only the original classifies correctly; without labels, the number of images on
            which the two differ.
        gained: Number of images that only the slimmed graph classifies correctly; 0 without labels.
        labelled: Whether `lost` and `gained` were counted by labels.
        drop_pp: Drop in percentage points.
        upper_pp: Upper end of the drop's 95 % confidence interval in percentage points.
        lower_pp: Lower end of it; None in records of earlier versions.
        precision: Precision of the graph that was tried.
        kept: Layer groups that stayed in float in an int8 graph.
        engine: Engine that it was timed on; empty where it was not.
        ms: Median latency of one run in ms, and its 95 % interval over the rounds; None where it was not timed.
        faster: Latency of the whole network in float, timed in the same turns, against its own.
    """

    asked: float
    share: float
    images: str
    n: int
    kl: float
    lost: int
    gained: int
    labelled: bool
    drop_pp: float
    upper_pp: float
    lower_pp: float | None = None
    precision: str = "fp32"
    kept: tuple[str, ...] = ()
    engine: str = ""
    ms: tuple[float, float, float] | None = None
    faster: SpeedUp | None = None

    @property
    def what(self) -> str:
        """Name of what was tried: its precision, and how much of the network is left."""
        groups = f" and {len(self.kept)} layer groups in float" if self.kept else ""
        return f"{self.precision}{groups}, {'whole' if self.share == 1 else f'{self.share:.2f} of the MACs'}"

    @property
    def gain(self) -> str:
        """Speed against the whole network in float; empty where it was not timed, or is that network."""
        if self.faster is None:
            return ""
        return f"{self.faster.ratio:.2f}× [{self.faster.low:.2f}, {self.faster.high:.2f}] the whole network in float"


@dataclass(frozen=True, kw_only=True)
class SlimSearch:
    """The least multiply-accumulates within an accuracy budget: chosen on one image set, judged on another.

    Attributes:
        max_drop_pp: Percentage points that the upper end of the drop's interval may reach.
        tried: Trials on the tuning images, in the order in which they were made.
        chosen: The trial that was chosen; None where none keeps the budget.
        judged: The chosen graph on the check images, which chose nothing; None where there are none.
        artifact: sha256 of the chosen float graph; empty where none keeps the budget.
        compared: What was timed in turns, to choose the fastest that keeps the budget; empty where the fewest
            multiply-accumulates were looked for.
    """

    max_drop_pp: float
    tried: tuple[SlimTrial, ...]
    chosen: SlimTrial | None
    judged: SlimTrial | None
    artifact: str = ""
    compared: tuple[SlimTrial, ...] = ()

    @property
    def words(self) -> str:
        """Sentence on what was chosen, and what it loses."""
        trial = self.judged or self.chosen
        if trial is None:
            return f"slimmed: nothing within {self.max_drop_pp:g} points"
        what = "drop" if trial.labelled else "changed answers"
        chose = "which chose nothing" if self.judged else "which also chose it"
        timed = next((one for one in self.compared if (one.what, one.asked) == (trial.what, trial.asked)), None)
        as_well = f" as {trial.what.partition(',')[0]}, {timed.gain} on {timed.engine}" if timed is not None else ""
        return (
            f"slimmed to {trial.share:.2f} of the multiply-accumulates{as_well}: {what} {trial.drop_pp:+.2f} points, "
            f"at most {trial.upper_pp:+.2f}, on {trial.n} images of {trial.images}, {chose}"
        )

    @property
    def found(self) -> bool:
        """Whether the chosen graph keeps the budget on the images that did not choose it."""
        return self.chosen is not None and (self.judged is None or self.judged.upper_pp <= self.max_drop_pp)


@dataclass(frozen=True, kw_only=True)
class LayerSaving:
    """Time of one layer group in the float engines of both graphs, which were not timed in turns.

    Attributes:
        name: Name of the layer group.
        before_ms: Its time in one run before, in ms.
        after_ms: Its time in one run of the slimmed graph, in ms.
    """

    name: str
    before_ms: float
    after_ms: float


@dataclass(frozen=True, kw_only=True)
class Slimming:
    """What `slim` returns.

    Attributes:
        slimmed: The graph; None where none keeps the budget.
        search: How the number of multiply-accumulates was found; None where it was given.
        refused: (reason, number of convolutions) for those whose channels cannot be removed.
        savings: Time of each layer group before and after, on the engine it is for; empty where it was not asked for.
        no_savings: Why there are no times although they were asked for; empty where there are.
    """

    slimmed: Slimmed | None
    search: SlimSearch | None = None
    refused: tuple[tuple[str, int], ...] = ()
    savings: tuple[LayerSaving, ...] = ()
    no_savings: str = ""
