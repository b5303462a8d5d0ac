"""What a checkpoint file holds, whatever its format: the record between `formats` and `architecture`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from deploy_kit.checkpoint.facts import ArchitectureFacts
from deploy_kit.records.artifacts import Preprocess

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
        state_key: Path of the state dict inside the file; None where the format holds one set of weights alone.
    """

    kind: Container
    tensors: Mapping[str, Tensor]
    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)
    preprocess: Preprocess | None = None
    remarks: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state_key: str | None = None

    @property
    def from_keras(self) -> bool:
        """Whether Keras wrote it: maps are flattened channels last there, and epsilon is 1e-3 unless stated."""
        return self.kind in _KERAS
