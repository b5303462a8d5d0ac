"""Records of the files that stages write: graphs and engines, and the facts that travel with them. All frozen.

Records of what is measured on them are in `results` and `measurements`; `codec` converts both to JSON and back.
"""

import math
import shlex
from dataclasses import dataclass, field, replace
from typing import Literal

from deploy_kit.base.errors import RecipeError
from deploy_kit.records.densenet import DenseNetSpec
from deploy_kit.records.made_by import MadeBy

ArtifactKind = Literal["checkpoint", "onnx", "engine"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
MOST_RESIZE = 16
"""Times of the input that an image is scaled to at most: beyond it, it would be made large for nothing."""
_MOST_MEAN, _MOST_STD = 2.0, 3.0
"""Largest mean and standard deviation of a channel of pixels in 0..1; nearly all channels of 0..255 exceed it."""
_LEAST_STD = 1e-6  # a thousandth of a pixel's step; below 1e-38 it is 0 in float32


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """An input or output of a graph.

    Attributes:
        name: Name of the tensor in the graph.
        dtype: Element type by its name in ONNX, in lower case, e.g. ``float`` or ``int64``.
        shape: Length of each axis; text where it is dynamic: the symbolic name of the axis, or ``?``.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How an image becomes the input tensor; every artifact carries it.

        tensor = (pixel / 255 - mean) / std

    Attributes:
        height: Height of the input in px.
        width: Width of the input in px.
        color: Channel order of the tensor.
        mean: Mean of each channel, for pixels scaled to 0..1.
        std: Standard deviation of each channel, for pixels scaled to 0..1.
        resize: Length in px to which an image's shorter side is scaled before the center crop; None where images
            must already have the input's size.
        interpolation: Filter of the resize.
        input_pixels: Whether the graph takes the pixels themselves, uint8 (height, width, channels) with channels in
            RGB order, and normalizes them; `color` is then the channel order behind its normalization.
    """

    height: int
    width: int
    color: Literal["gray", "rgb", "bgr"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    # Hashes of the store and the metadata of files are made of this record's JSON: one without pixels keeps its own.
    input_pixels: bool = field(default=False, metadata={"json": "unless default"})

    @property
    def channels(self) -> int:
        """Number of channels of the input."""
        return 1 if self.color == "gray" else 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image as the graph takes it: (channels, height, width); of pixels, channels come last."""
        sides = (self.height, self.width)
        return (*sides, self.channels) if self.input_pixels else (self.channels, *sides)

    @property
    def normalized(self) -> "Preprocess":
        """The same for a graph that takes the normalized float32 tensor."""
        return replace(self, input_pixels=False)

    @property
    def units_fault(self) -> str:
        """What shows that mean and std are for pixels up to 255; empty where they fit pixels in 0..1."""
        if max(map(abs, self.mean)) <= _MOST_MEAN and max(self.std) <= _MOST_STD:
            return ""
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"mean {mean} and std {std} are for pixels up to 255, and pixels are divided by 255 first"

    @property
    def words(self) -> str:
        """How an image becomes the input, in words."""
        size = f"{self.height}×{self.width} px"
        if self.resize is None:
            size = f"images of {size}"
        else:
            size = f"shorter side scaled to {self.resize} px ({self.interpolation}, antialiased), center crop of {size}"
        mean, std = (", ".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        formula = f"(pixel / 255 - mean) / std with mean {mean} and std {std}"
        if self.input_pixels:
            return f"{size}; the graph takes the pixels, uint8 with channels last, and computes {self.color}, {formula}"
        return f"{size}, {self.color}; {formula}"

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: A size is not positive, a mean or std is not finite or has the wrong number of channels, or a
                std is not positive.
        """
        if min(self.height, self.width) < 1:
            raise RecipeError(f"preprocess: expected a size of at least 1×1 px, found {self.height}×{self.width}")
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise RecipeError(
                f"preprocess: '{self.color}' needs {self.channels} values of mean and of std, "
                f"found {len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)) or min(self.std) < _LEAST_STD:
            raise RecipeError(f"preprocess: expected finite means and positive stds, found {self.mean}, {self.std}")
        if self.resize is not None and self.resize < 1:
            raise RecipeError(f"preprocess: expected a resize to at least 1 px, found {self.resize}")


@dataclass(frozen=True, kw_only=True)
class BareInput:
    """An input that is not an image, or of which only the shape is known: it takes seeded noise, but no images.

    Attributes:
        shape: Shape of one sample: (channels, …), without the batch axis.
    """

    shape: tuple[int, ...]

    @property
    def words(self) -> str:
        """What is known of the input, in words."""
        return f"an input of {'×'.join(map(str, self.shape))}; how it is prepared is not known"

    @property
    def normalized(self) -> "BareInput":
        """The same: only images are normalized."""
        return self


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The types that a built engine really computes in, read from the engine itself.

    Attributes:
        source: Where the counts were read, e.g. ``OpenVINO's runtime model``.
        counts: (operation, dtype, number of nodes) for each pair that occurs, e.g. ``("Conv", "int8", 42)``.
        remark: What the counts do not cover; empty if they cover everything.
        placement: (device or execution provider, operation or ``other``, number of nodes) for each pair that occurs;
            empty where the engine does not report it.
        kernels: (kind, number) of the kernels that the engine launches; empty where it does not name them.
        network: (layer, dtype, number) of the typed network that was handed to the builder; empty where it was not
            counted.
        bindings: (input or output, dtype) of each binding of the engine.
        advice: Warning that the counts justify before anything is measured; empty if there is none.
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
        """Return the share in 0..1 of operations named `of` (of all operations, if None) that compute in `dtype`."""
        rows = [row for row in self.counts if of is None or row[0] == of]
        total = sum(row[2] for row in rows)
        return sum(row[2] for row in rows if row[1] == dtype) / total if total else 0.0

    @property
    def places(self) -> dict[str, int]:
        """Number of nodes on each device or execution provider, in descending order."""
        nodes: dict[str, int] = {}
        for place, _, n in self.placement:
            nodes[place] = nodes.get(place, 0) + n
        return dict(sorted(nodes.items(), key=lambda entry: -entry[1]))


@dataclass(frozen=True, kw_only=True)
class BuiltFor:
    """Passport of an engine that fits only one library version and one kind of GPU.

    Attributes:
        package: Library that built the engine, e.g. ``tensorrt``.
        version: Version of that library.
        capabilities: Compute capabilities of the GPUs that the engine fits, e.g. ``("8.6", "8.9")``.
        compatible: Further targets that may load it: ``version`` (later library versions), or the hardware
            compatibility level it was built with (``ampere+``, ``sameComputeCapability``).
        gpu: Name of the GPU on the build machine; empty if it had none.
        driver: Version of the NVIDIA driver on the build machine; empty if it had none.
        host: Operating system, kernel and architecture of the build machine.
        onnx_sha256: sha256 of the ONNX graph that it was built from.
        engine_sha256: sha256 of the engine's main file.
        options: Build options, as JSON.
        timing_cache: Name of the timing cache, whether it was reused, and its size before and after; empty where none
            was used.
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
class Origin:
    """What the passport of a delivered file says besides the file itself.

    Attributes:
        checkpoint: Name of the checkpoint.
        checkpoint_sha256: sha256 of the checkpoint.
        accuracy: Verdict of the check, which judges no latency, in one line with its limits.
        images: Name of the image set of the check.
        n_images: Number of images of the check.
        drop: Accuracy that was lost, with its interval, in words; empty without labels.
        answers_sha256: sha256 of the reference logits and labels that the check compared with.
        images_sha256: Hash over the check images, their order and labels (`ImageSet.digest`); empty where not recorded.
        calibration: Calibration image set of the graph that the engine was built from; empty where it saw none.
        calibration_sha256: Hash over the calibration images and their order; empty where it was not recorded.
        graph_made_by: What made the graph that the engine was built from: scheme, options, passes, versions.
        max_drop: Limit on the drop in points that it was held to; None where none was set or recorded.
        min_top1: Limit on the top-1 accuracy in 0..1 that it was held to; None likewise.
    """

    checkpoint: str
    checkpoint_sha256: str
    accuracy: str = field(metadata={"json was": "verdict"})
    images: str
    n_images: int
    drop: str = ""
    answers_sha256: str = ""
    images_sha256: str = ""
    calibration: str = ""
    calibration_sha256: str = ""
    graph_made_by: MadeBy = field(default_factory=MadeBy)
    max_drop: float | None = None
    min_top1: float | None = None


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file in the store, with everything that a later stage must know about it.

    Attributes:
        kind: Kind of file: ``checkpoint``, ``onnx`` or ``engine``.
        name: Short name within a recipe, e.g. ``int8``.
        path: Path of the main file, relative to the store.
        sha256: sha256 of the file; where it consists of several files, of all of them (`whole_files.digest_of`).
        size_bytes: Total size of the files that a target needs, in bytes.
        precision: Numeric precision of the graph; ``int8`` also where some layers stay in float.
        inputs: Input tensors of the graph.
        outputs: Output tensors of the graph.
        preprocess: How images become the input; a `BareInput` where only its shape is known.
        stage: Name of the stage that wrote it.
        parent: sha256 of the file it was made from; following it leads back to the checkpoint.
        engine: Name of its engine in the catalogue; None for a file that is not an engine.
        made_by: Options, images and library versions that decided its content.
        options: Build options as JSON; the engine is run with the same options.
        proof: Types and devices that the engine computes in; None before a build.
        build_s: Duration of the build on the device in seconds, without the proof; 0 for a file that is not an engine.
        built: Passport of an engine that fits only one version and GPU; None where it loads everywhere.
        origin: Checkpoint and verdict, in the passport of a delivered file; None in the store.
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
    made_by: MadeBy = field(default_factory=MadeBy)
    options: str = "{}"
    proof: Proof | None = None
    build_s: float = 0.0
    built: BuiltFor | None = None
    origin: Origin | None = None

    @property
    def label(self) -> str:
        """Name in tables, e.g. ``int8 · openvino``."""
        return f"{self.name} · {self.engine}" if self.engine else self.name


@dataclass(frozen=True, kw_only=True)
class CheckpointFacts:
    """Facts about the checkpoint that all artifacts are made from.

    Attributes:
        name: Name of the checkpoint in the recipe.
        sha256: sha256 of the file.
        size_bytes: Size of the file in bytes.
        container: File format.
        spec: Architecture that was found in it; None where an ONNX file was given instead of a checkpoint.
        parameters: Number of trainable parameters; BN running statistics are not counted.
        remarks: Sentences on what was changed or assumed while the file was read.
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
        """Name of the architecture, e.g. ``DenseNet-BC-121 (k = 32)``."""
        return self.spec.title if self.spec else "ONNX graph"


@dataclass(frozen=True, kw_only=True)
class Exported:
    """Result of the stage `export`.

    Attributes:
        checkpoint: The checkpoint that was exported.
        onnx: The ONNX graph that was written.
        difference: Largest absolute difference between the logits of the graph and of the checkpoint, divided by the
            largest absolute logit.
        verified_on: Input on which both were run, e.g. ``32 images, batch 1``.
    """

    checkpoint: CheckpointFacts
    onnx: Artifact
    difference: float
    verified_on: str

    @property
    def agreement(self) -> str:
        """Sentence on how well the graph reproduces the checkpoint, and on which input."""
        if self.checkpoint.spec is None:
            return self.verified_on
        return f"{self.difference:.2g} of the largest logit, on {self.verified_on}"


@dataclass(frozen=True, kw_only=True)
class LogitsPart:
    """The checkpoint's own logits on some consecutive images of a set.

    Attributes:
        path: Path of the npy file, relative to the store: (n, classes) float32.
        sha256: sha256 of the npy file.
        n: Number of images.
    """

    path: str
    sha256: str
    n: int


@dataclass(frozen=True, kw_only=True)
class ReferenceLogits:
    """The checkpoint's own logits on a set of images; every engine is compared with them.

    Attributes:
        path: Path of the file, relative to the store: npz with ``logits`` (n, classes) float32 and, where the images
            are labelled, ``labels`` as in `ImageSet`; where `task` is set, npy with the outputs (n, …) float32.
        sha256: sha256 of the file.
        images: Name of the image set in the recipe; ``synthetic`` for seeded noise.
        n: Number of images.
        labelled: Whether the images have labels, so that accuracy can be measured.
        top1: Top-1 accuracy of the checkpoint in 0..1; None without labels, or where an image has several labels.
        made_by: Library that computed them, and images that were left out.
        skipped: Number of images that were left out because they cannot be read.
        crops: Number of crops of each image whose logits were averaged.
        images_sha256: Hash over images, order and labels (`ImageSet.digest`); empty where it was not recorded.
        task: What the outputs mean (`accuracy.tasks`); empty for one row of classes an image.
        task_from: Where the task is from: ``stated``, or what it was inferred from.
        ignore_index: Class number of labels that is not judged; None judges all.
        probabilities: Whether all outputs lie in 0..1; not recorded for one row of classes an image.
        classes: Names of the classes; not recorded for one row of classes an image.
    """

    path: str
    sha256: str
    images: str
    n: int
    labelled: bool
    top1: float | None
    made_by: MadeBy = field(default_factory=MadeBy)
    skipped: int = 0
    crops: Literal[1, 10] = 1
    images_sha256: str = ""
    task: str = ""
    task_from: str = ""
    ignore_index: int | None = None
    probabilities: bool = False
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Device:
    """A machine on which engines are built, checked and measured.

    Attributes:
        name: Name that the user gave it.
        link: Name of the link that reaches it, from the catalogue of links, e.g. ``ssh``.
        address: Address of the machine, ``[user@]host[:port]``; empty for this machine.
        accelerator: Processor that engines run on: ``cpu``, ``cuda:0``, ``dla:0``, or OpenVINO's ``GPU`` or ``NPU``.
        profile: A note of the user's on its hardware; nothing is derived from it. None where there is none.
        python: Command of the Python interpreter on the machine.
    """

    name: str
    link: str
    address: str = ""
    accelerator: str = "cpu"
    profile: str | None = None
    python: str = "python3"

    @property
    def python_word(self) -> str:
        """`python` as a word for the machine's shell, in which ``~/`` is the home of its user there."""
        rest = self.python.removeprefix("~/")
        return shlex.quote(self.python) if rest == self.python else f'"$HOME"/{shlex.quote(rest)}'
