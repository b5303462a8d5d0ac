"""The nouns that are made: checkpoints, graphs, engines, and what travels with them. All frozen.

What is found out about them is in `results`; `codec` takes both to JSON and back.
"""

import math
from dataclasses import dataclass
from typing import Literal

from deploy_kit.base.errors import RecipeError
from deploy_kit.records.densenet import DenseNetSpec

ArtifactKind = Literal["checkpoint", "onnx", "engine"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]


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

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's tensor: (channels, height, width)."""
        return (self.channels, self.height, self.width)

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
class BareInput:
    """An input of which only the shape is known, or that is no image: seeded noise can be fed to it, images cannot.

    Attributes:
        shape: Of one sample: (channels, …).
    """

    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a built engine really computes in, read from the engine itself.

    Attributes:
        source: Where it was read, e.g. ``OpenVINO runtime model``.
        counts: (operation, dtype, how many) for each pair found.
        remark: What the counts do not cover; empty if nothing.
        placement: (device or provider, operation or ``other``, how many nodes) for each pair found; empty where the
            engine does not say.
        kernels: (kind, how many) of the kernels that the engine launches, where it names them.
        network: (layer, dtype, how many) of the typed network that the builder was given, where it was counted.
        bindings: (input or output, dtype).
        advice: What the numbers tell before anything is measured, in words; empty if nothing.
    """

    source: str
    counts: tuple[tuple[str, str, int], ...]
    remark: str = ""
    placement: tuple[tuple[str, str, int], ...] = ()
    kernels: tuple[tuple[str, int], ...] = ()
    network: tuple[tuple[str, str, int], ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()
    advice: str = ""

    def share(self, dtype: str, *, of: str | None = None) -> float:
        """Give the share of operations named `of` (of all, if None) that compute in `dtype`."""
        rows = [row for row in self.counts if of is None or row[0] == of]
        total = sum(row[2] for row in rows)
        return sum(row[2] for row in rows if row[1] == dtype) / total if total else 0.0

    @property
    def places(self) -> dict[str, int]:
        """Nodes on each device or provider, the most first."""
        found: dict[str, int] = {}
        for place, _, n in self.placement:
            found[place] = found.get(place, 0) + n
        return dict(sorted(found.items(), key=lambda entry: -entry[1]))


@dataclass(frozen=True, kw_only=True)
class BuiltFor:
    """Where and from what an engine was built that fits one version and one kind of GPU.

    Attributes:
        package: Of the engine, e.g. ``tensorrt``.
        version: Of the package.
        capabilities: Compute capabilities that it fits, e.g. ``("8.6", "8.9")``.
        compatible: What else it may be loaded by: ``version`` (a later one), ``ampere+``, ``same_compute_capability``.
        gpu: That it was built on; empty if there was none.
        driver: NVIDIA's, likewise.
        host: Operating system.
        onnx_sha256: Of the graph.
        engine_sha256: Of the engine's main file.
        options: It was built with, as JSON.
        timing_cache: What became of it; empty where there is none.
    """

    package: str
    version: str
    capabilities: tuple[str, ...]
    compatible: tuple[str, ...]
    gpu: str
    driver: str
    host: str
    onnx_sha256: str
    engine_sha256: str
    options: str
    timing_cache: str = ""


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
        preprocess: How images become its input, as far as that is known.
        stage: The stage that made it.
        parent: sha256 of what it was made from; chains back to the checkpoint.
        engine: The engine it is for, if it is one.
        made_by: (what, value): options and versions that decided it.
        options: Options it was built with, as JSON; it runs with the same.
        proof: What the engine computes in, and where; None before a build.
        build_s: Seconds its build took on the device, the proof not counted; 0 where it is no engine.
        built: What it fits, if it does not load everywhere.
    """

    kind: ArtifactKind
    name: str
    path: str
    sha256: str
    size_bytes: int
    precision: Precision
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | BareInput
    stage: str
    parent: str
    engine: str | None = None
    made_by: tuple[tuple[str, str], ...] = ()
    options: str = "{}"
    proof: Proof | None = None
    build_s: float = 0.0
    built: BuiltFor | None = None

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

    @property
    def said(self) -> str:
        """Say how the graph was held against the checkpoint."""
        if self.checkpoint.spec is None:
            return self.verified_on
        return f"{self.difference:.2g} of the largest logit, on {self.verified_on}"


@dataclass(frozen=True, kw_only=True)
class ReferenceLogits:
    """The checkpoint's own logits on a set of images: what every engine is held against.

    Attributes:
        path: npz with ``logits`` (n, classes) float32 and, if labelled, ``labels`` as in `ImageSet`; relative
            to the store.
        sha256: Of the npz.
        images: The image set, as the recipe names it; ``synthetic`` for seeded noise.
        n: Number of images.
        labelled: Whether accuracy can be measured.
        top1: The checkpoint's own accuracy in 0..1; None without labels, or with several labels an image.
        made_by: (what, value), e.g. who computed it.
        skipped: Images that were left out because they cannot be read.
        crops: Of each image, whose logits were averaged.
    """

    path: str
    sha256: str
    images: str
    n: int
    labelled: bool
    top1: float | None
    made_by: tuple[tuple[str, str], ...] = ()
    skipped: int = 0
    crops: Literal[1, 10] = 1


@dataclass(frozen=True, kw_only=True)
class Device:
    """A machine to work on.

    Attributes:
        name: As the user calls it.
        link: How it is reached; an entry of the catalogue of links.
        address: ``[user@]host[:port]``; empty for this machine.
        accelerator: What computes there: ``cpu``, ``cuda:0``, ``dla:0``, or OpenVINO's ``GPU`` or ``NPU``.
        profile: Profile of its hardware, by name; None where it has none.
        python: The interpreter that runs there.
    """

    name: str
    link: str
    address: str = ""
    accelerator: str = "cpu"
    profile: str | None = None
    python: str = "python3"
