"""What a checkpoint file holds, whatever its format: the one record that every reader gives."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from deploy_kit.checkpoint.facts import ArchitectureFacts
from deploy_kit.records.artifacts import Preprocess


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a checkpoint file holds.

    Attributes:
        kind: The container, e.g. ``safetensors``.
        tensors: By dotted name, in torch's layouts and with torch's leaf names, of the dtype they are kept in.
        facts: Facts of the architecture that the file states.
        preprocess: If the file states it.
        remarks: What was chosen while reading.
        classes: Names of the classes in the order of the outputs, if the file states them.
        attributes: Module path → the module's class (under ``class``) and its plain attributes such as ``eps``; of
            whole modules and of formats that keep a configuration.
        order: Module paths in the order of execution, if the file states it.
    """

    kind: str
    tensors: Mapping[str, Tensor]
    facts: ArchitectureFacts = field(default_factory=ArchitectureFacts)
    preprocess: Preprocess | None = None
    remarks: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    attributes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    order: tuple[str, ...] | None = None
