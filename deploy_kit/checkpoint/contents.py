"""What a checkpoint file holds, whatever its format: the record between `formats` and `architecture`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from torch import Tensor

from deploy_kit.checkpoint.facts import ArchitectureFacts
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import HeadActivation

Container = Literal[
    "safetensors",
    "torch zip",
    "torch legacy",
    "pickle",
    "Paddle .pdparams",
    "TorchScript",
    "torch.export",
    "Keras 3 (.keras)",
    "Keras 3 HDF5",
    "Keras 2 HDF5",
]
_KERAS: frozenset[Container] = frozenset({"Keras 3 (.keras)", "Keras 3 HDF5", "Keras 2 HDF5"})
OnRead = Callable[[str, Tensor], None]


@dataclass(frozen=True)
class Answer:
    """One output of a stated forward pass.

    Attributes:
        value: The output, (N, …) float32.
        logits: What came before its last activation; the output itself where there is none.
        activation: That activation.
    """

    value: Tensor
    logits: Tensor
    activation: HeadActivation


class StatedForward(Protocol):
    """The forward pass that a file states, computed operator by operator: a witness that knows of no architecture.

    Attributes:
        source: What states it, e.g. ``TorchScript code``.
        shape: (channels, side, …) of its input as the file states it, None where a number is open; empty where the file
            states no shape.
        batch: Number of inputs at a time, where the graph is fixed to one number.
    """

    @property
    def source(self) -> str: ...
    @property
    def shape(self) -> tuple[int | None, ...]: ...
    @property
    def batch(self) -> int | None: ...

    def answers(self, x: Tensor, on_read: OnRead | None = None) -> tuple[Answer, ...]:
        """Compute its outputs.

        Args:
            x: (N, C, …) float32, whatever the file's own layout.
            on_read: Called with (name of a weight, what it is applied to), in the order of computation.

        Raises:
            CheckpointError: It calls an operator that is not known, or does not fit the input.
        """


@dataclass(frozen=True, kw_only=True)
class Sidecar:
    """What files beside the weights say.

    Attributes:
        source: The file, e.g. ``config.json``.
        preprocess: Preprocessing of images.
        classes: Names of the classes in the order of the outputs.
        channels: Channels of the input.
        sides: Sides of the input in px, where no preprocessing states them.
        facts: Facts of the architecture.
    """

    source: str
    preprocess: Preprocess | None = None
    classes: tuple[str, ...] | None = None
    channels: int | None = None
    sides: tuple[int, ...] | None = None
    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
        kind: The file format.
        tensors: Tensors by dotted name, in torch's layouts and with torch's leaf names, of the dtype they are kept in.
        facts: Facts of the architecture that the file states.
        preprocess: Preprocessing of its images, if the file states it.
        remarks: What was chosen while reading.
        classes: Names of the classes in the order of the outputs, if the file states them.
        attributes: Module path → the module's class (under ``class``) and its plain attributes such as ``eps``, where
            the file is a whole pickled module.
        places: Layer → its place in the graph that the file states, where its path tells nothing of the structure.
        state_key: Path of the state dict inside the file; None where the format holds one set of weights alone.
        forward: The forward pass that the file states; None where it holds none.
        beside: What files beside it say; None where there are none.
    """

    kind: Container
    tensors: Mapping[str, Tensor]
    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)
    preprocess: Preprocess | None = None
    remarks: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    state_key: str | None = None
    forward: StatedForward | None = None
    beside: Sidecar | None = None

    @property
    def from_keras(self) -> bool:
        """Whether Keras wrote it: maps are flattened channels last there, and epsilon is 1e-3 unless stated."""
        return self.kind in _KERAS
