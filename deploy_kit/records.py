"""The nouns that are made: checkpoints, graphs, engines, and what travels with them. All frozen.

What is found out about them is in `results`; `codec` takes both to JSON and back.
"""

import math
from dataclasses import dataclass
from typing import Literal

from deploy_kit.errors import RecipeError

Kind = Literal["checkpoint", "onnx", "engine"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


@dataclass(frozen=True, kw_only=True)
class DenseBlock:
    """One dense block.

    Attributes:
        layers: Number of dense layers.
        growth: Channels each layer adds (the paper's k).
        bottleneck: Channels between the 1×1 and the 3×3 convolution; None where there is no bottleneck.
    """

    layers: int
    growth: int
    bottleneck: int | None


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec:
    """Everything about a DenseNet that decides its numbers, weights aside.

    Attributes:
        in_channels: Channels of the input image.
        classes: Rows of the classifier.
        stem_channels: Channels after the first convolution.
        stem_kernel: Side of the first convolution's kernel, in px.
        stem_stride: Its stride.
        stem_norm: BN and ReLU follow the first convolution.
        stem_pool: A 3×3 max pool of stride 2 ends the stem.
        blocks: The dense blocks in order.
        transitions: Channels after each transition; one fewer than blocks.
        eps: Epsilon of every BN.
        sources: (fact, where it came from) for each fact that shapes alone do not give.
    """

    in_channels: int
    classes: int
    stem_channels: int
    stem_kernel: int
    stem_stride: int
    stem_norm: bool
    stem_pool: bool
    blocks: tuple[DenseBlock, ...]
    transitions: tuple[int, ...]
    eps: float
    sources: tuple[tuple[str, str], ...] = ()

    @property
    def width(self) -> int:
        """Channels that the classifier reads."""
        last = self.blocks[-1]
        before = self.transitions[-1] if self.transitions else self.stem_channels
        return before + last.layers * last.growth

    @property
    def depth(self) -> int:
        """Layers with weights, counted as the paper does: DenseNet-121 has 121."""
        dense = sum(block.layers * (1 if block.bottleneck is None else 2) for block in self.blocks)
        return 1 + dense + len(self.transitions) + 1

    @property
    def compressed(self) -> bool:
        """Whether a transition gives fewer channels than it reads."""
        width, fewer = self.stem_channels, False
        for block, out in zip(self.blocks, self.transitions, strict=False):
            fewer |= out < width + block.layers * block.growth
            width = out
        return fewer

    @property
    def title(self) -> str:
        """Name it as the paper would, e.g. ``DenseNet-BC-40 (k = 12)``."""
        letters = "B" * any(block.bottleneck is not None for block in self.blocks) + "C" * self.compressed
        family = f"DenseNet-{letters}" if letters else "DenseNet"
        growths = dict.fromkeys(str(block.growth) for block in self.blocks)
        return f"{family}-{self.depth} (k = {', '.join(growths)})"


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph: name, dtype as ONNX calls it, shape with text for dynamic axes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the input tensor; it travels with every artifact.

    Attributes:
        height: Rows of the input, in px.
        width: Columns of the input, in px.
        color: Channel order of the tensor.
        mean: Per channel, subtracted after dividing by 255.
        std: Per channel, divided by after the mean is subtracted.
        resize: Length in px that the shorter side is scaled to before a center crop; None where images must
            already have the input's size.
        interpolation: Filter of the resize.
    """

    height: int
    width: int
    color: Literal["gray", "rgb", "bgr"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"

    @property
    def channels(self) -> int:
        """Channels of the input."""
        return 1 if self.color == "gray" else 3

    def __post_init__(self) -> None:
        """Refuse what cannot be carried out.

        Raises:
            RecipeError: A size, a mean or a std that no image can be prepared with.
        """
        if min(self.height, self.width) < 1:
            raise RecipeError(f"preprocess: expected a size of at least 1×1 px, found {self.height}×{self.width}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise RecipeError(
                f"preprocess: '{self.color}' needs {self.channels} values of mean and of std, "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) <= 0:
            raise RecipeError(f"preprocess: expected finite means and positive stds, found {self.mean}, {self.std}")
        if self.resize is not None and self.resize < 1:
            raise RecipeError(f"preprocess: expected a resize to at least 1 px, found {self.resize}")


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a built engine really computes in, read from the engine itself.

    Attributes:
        source: Where it was read, e.g. ``OpenVINO runtime model``.
        counts: (operation, dtype, how many) for each pair found.
        remark: What the counts do not cover; empty if nothing.
    """

    source: str
    counts: tuple[tuple[str, str, int], ...]
    remark: str = ""

    def share(self, dtype: str, *, of: str | None = None) -> float:
        """Give the share of operations named `of` (of all, if None) that compute in `dtype`."""
        rows = [row for row in self.counts if of is None or row[0] == of]
        total = sum(row[2] for row in rows)
        return sum(row[2] for row in rows if row[1] == dtype) / total if total else 0.0


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file of the store and its passport.

    Attributes:
        kind: ``checkpoint``, ``onnx`` or ``engine``.
        name: Short name within a recipe, e.g. ``int8``.
        path: Of the main file, relative to the store.
        sha256: Of the file; of all its files where there are several (`store.digest_of`).
        size_bytes: Of all files a target needs.
        precision: What its graph is typed in.
        inputs: Input tensors.
        outputs: Output tensors.
        preprocess: How images become its input.
        stage: The stage that made it.
        parent: sha256 of what it was made from; chains back to the checkpoint.
        engine: The engine it is for, if it is one.
        made_by: (what, value): options and versions that decided it.
        options: Options it was built with, as JSON; it runs with the same.
        proof: What the engine computes in; None before a build.
    """

    kind: Kind
    name: str
    path: str
    sha256: str
    size_bytes: int
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess
    stage: str
    parent: str
    engine: str | None = None
    made_by: tuple[tuple[str, str], ...] = ()
    options: str = "{}"
    proof: Proof | None = None

    @property
    def label(self) -> str:
        """Name it for a table, e.g. ``int8 · openvino``."""
        return f"{self.name} · {self.engine}" if self.engine else self.name


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """What is known of the checkpoint that all artifacts come from.

    Attributes:
        name: As the recipe names it.
        sha256: Of the file.
        size_bytes: Of the file.
        container: The file format.
        spec: The architecture; None where an ONNX file was given instead of a checkpoint.
        parameters: Number of weights, BN statistics not counted.
        remarks: What was done to it while reading.
    """

    name: str
    sha256: str
    size_bytes: int
    container: str
    spec: DenseNetSpec | None
    parameters: int
    remarks: tuple[str, ...]

    @property
    def title(self) -> str:
        """Name the architecture."""
        return self.spec.title if self.spec else "ONNX graph"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What `export` gives.

    Attributes:
        checkpoint: Where it came from.
        onnx: The graph.
        difference: Largest |difference| to the checkpoint's logits when re-run, relative to the largest |logit|.
        verified_on: What it was re-run on, e.g. ``32 images, batch 1``.
    """

    checkpoint: CheckpointFacts
    onnx: Artifact
    difference: float
    verified_on: str


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The checkpoint's own logits on a set of images: what every engine is held against.

    Attributes:
        path: npz with ``logits`` (n, classes) float32 and, if labelled, ``labels`` (n,) int64; relative to the store.
        sha256: Of the npz.
        images: The image set, as the recipe names it; ``synthetic`` for seeded noise.
        n: Number of images.
        labelled: Whether top-1 accuracy can be measured.
        top1: The checkpoint's own accuracy in 0..1; None without labels.
        made_by: (what, value), e.g. who computed it.
    """

    path: str
    sha256: str
    images: str
    n: int
    labelled: bool
    top1: float | None
    made_by: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """A machine to work on.

    Attributes:
        name: As the user calls it.
        link: How it is reached; an entry of the catalogue of links.
        accelerator: What computes there.
    """

    name: str
    link: str
    accelerator: str = "cpu"
