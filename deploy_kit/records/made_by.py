"""What made an artifact: the part of its passport that says with which options, images and versions."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class MadeBy:
    """What decided a result. A field that does not apply is empty.

    Attributes:
        exporter: torch's exporter, or the program that an ONNX file names as its producer.
        opset: ONNX operator set that was asked for.
        passes: Graph passes in order, separated by commas.
        scheme: Quantization scheme.
        options: Options of the scheme, as JSON.
        calibration: Calibration image set, as the recipe names it.
        n_images: Number of calibration images.
        calibration_sha256: Hash over the calibration images and their order (`ImageSet.digest`).
        calibration_remarks: What the checks of the calibration set remarked.
        left_out: Images that were left out because they cannot be read, as one sentence.
        slimmed: What was removed from the checkpoint's network, as one sentence.
        notes: (what, value) pairs that the scheme itself reports.
        float_groups: Layer groups that stayed in float.
        float_nodes: Nodes of a half-precision graph that stayed in float32.
        needs: What the graph asks of a runtime, one requirement each.
        peak_memory_mib: Peak memory of the quantizing process, in MiB.
        machine: (what, value) pairs of the machine an engine was built for.
        versions: (library, version) pairs.
    """

    exporter: str = ""
    opset: str = ""
    passes: str = ""
    scheme: str = ""
    options: str = ""
    calibration: str = ""
    n_images: str = ""
    calibration_sha256: str = ""
    calibration_remarks: str = ""
    left_out: str = ""
    slimmed: str = ""
    notes: Pairs = ()
    float_groups: str = ""
    float_nodes: str = ""
    needs: tuple[str, ...] = ()
    peak_memory_mib: str = ""
    machine: Pairs = ()
    versions: Pairs = ()

    @property
    def rows(self) -> Pairs:
        """What applies, as (what, value) pairs for a table: versions stand before the machine they were built for."""
        named = {label: getattr(self, name) for name, label in _LABELS.items()}
        texts = tuple((label, value) for label, value in named.items() if isinstance(value, str) and value)
        before = tuple(row for row in texts if row[0] not in _AFTER_NOTES)
        after = tuple(row for row in texts if row[0] in _AFTER_NOTES and row[0] != _LABELS["peak_memory_mib"])
        memory = tuple(row for row in texts if row[0] == _LABELS["peak_memory_mib"])
        needs = tuple(("needs", need) for need in self.needs)
        return (*before, *self.notes, *after, *needs, *memory, *self.versions, *self.machine)

    @classmethod
    def from_pairs(cls, pairs: Iterable[Iterable[Any]]) -> "MadeBy":
        """Read the form of deploykit 0.1: a list of (what, value) pairs.

        Raises:
            ValueError: An entry is no pair.
        """
        values: dict[str, Any] = {}
        notes, machine, versions, needs = [], [], [], []
        names = {label: name for name, label in _LABELS.items()}
        for what, value in pairs:
            label, text = str(what), str(value)
            if label in names:
                values[names[label]] = text
            elif label == "needs":
                needs.append(text)
            elif label in _MACHINE:
                machine.append((label, text))
            elif _VERSION.match(text):
                versions.append((label, text))
            else:
                notes.append((label, text))
        return cls(**values, notes=tuple(notes), machine=tuple(machine), versions=tuple(versions), needs=tuple(needs))

    @classmethod
    def upgraded(cls, data: Any) -> Any:
        """Return JSON data in today's form: what deploykit 0.1 wrote was a list of pairs."""
        if isinstance(data, Mapping) or not isinstance(data, (list, tuple)):
            return data
        record = cls.from_pairs(data)
        return {entry.name: getattr(record, entry.name) for entry in fields(cls)}


# Field → the words under which tables show it, in the order in which they are shown.
_LABELS = {
    "exporter": "exporter",
    "opset": "opset",
    "passes": "passes",
    "slimmed": "slimmed",
    "scheme": "scheme",
    "options": "options",
    "calibration": "calibration",
    "n_images": "images",
    "calibration_sha256": "calibration data sha256",
    "calibration_remarks": "calibration remarks",
    "left_out": "left out",
    "float_groups": "layer groups kept in float",
    "float_nodes": "kept in fp32",
    "peak_memory_mib": "peak_memory_mib",
}
_AFTER_NOTES = {"layer groups kept in float", "kept in fp32", "peak_memory_mib"}
_VERSION = re.compile(r"\d+(\.\w+)+(\+\S+)?$")
_MACHINE = ("machine", "cpu", "isa", "gpu", "l4t")
