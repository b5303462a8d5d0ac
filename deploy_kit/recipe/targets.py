"""Preferences of each target: graph passes by precision and the INT8 layout, read from `targets.yaml`."""

from dataclasses import dataclass
from importlib import resources

import yaml

from deploy_kit.base.errors import UnknownNameError, nearest
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Precision

_VNNI = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


@dataclass(frozen=True, kw_only=True)
class TargetPreferences:
    """Preferences of one engine.

    Attributes:
        int8: Layout of `quantize --int8`: scheme ``int8_<layout>``; empty where the engine takes float32 alone.
        fp32: Graph passes on top of the recipe's, in float32.
        fp16: Graph passes on top of the recipe's, in float16.
        bf16: Graph passes on top of the recipe's, in bfloat16.
        grids: Graph passes on Q/DQ pairs before a graph is built.
        channels: Width of its kernels: `slim` keeps multiples of so many channels.
        faster: Precisions between float32 and int8 that gain there, each with what it takes: an accelerator's kind
            (``gpu``), an instruction set, or ``any``.
    """

    int8: str = ""
    fp32: tuple[str, ...] = ()
    fp16: tuple[str, ...] = ()
    bf16: tuple[str, ...] = ()
    grids: tuple[str, ...] = ()
    channels: int = 16
    faster: tuple[tuple[Precision, str], ...] = ()

    def precisions(self, isa: tuple[str, ...], accelerator: str, *, calibrated: bool) -> tuple[Precision, ...]:
        """Return the precisions worth building: float32 as baseline, those that gain, int8 where images calibrate.

        Args:
            isa: Instruction sets of the processor.
            accelerator: Where the engine runs: ``cpu``, ``cuda:0``, ``GPU``, …
            calibrated: Whether there are images to calibrate with.
        """
        on_gpu = accelerator.partition(":")[0].lower() not in ("cpu", "npu")
        met = {"any", *(("gpu",) if on_gpu else isa)}
        between = tuple(precision for precision, need in self.faster if need in met)
        return ("fp32", *between, *(("int8",) if calibrated and self.int8 else ()))

    def passes(self, precision: Precision) -> tuple[str, ...]:
        """Return the graph passes for one precision; INT8 layouts bring their own."""
        return {"fp32": self.fp32, "fp16": self.fp16, "bf16": self.bf16, "int8": ()}[precision]


def find_target(name: str) -> TargetPreferences:
    """Return the preferences of an engine.

    Raises:
        UnknownNameError: The table has no row for it.
    """
    table = target_names()
    if name not in table:
        raise UnknownNameError(f"no target is called '{name}'", hint=nearest(name, table))
    return codec.from_json(TargetPreferences, table[name], f"targets.yaml: {name}")


def target_of(engine: str) -> str:
    """Return the row of preferences of an engine; a third party's has none of its own, and takes ONNX Runtime's."""
    return engine if engine in target_names() else "onnxruntime"


def target_names() -> dict[str, object]:
    """Read the table: rows by name."""
    text = resources.files("deploy_kit.recipe").joinpath("targets.yaml").read_text(encoding="utf-8")
    rows: dict[str, object] = yaml.safe_load(text)
    return rows


def narrow_sums(isa: tuple[str, ...]) -> bool:
    """Return whether a processor with these instruction sets adds two products of uint8 and int8 in 16 bits.

    x64 without VNNI does, and the sums saturate (`deploy_kit.graph.sums_of_two`). Processors with VNNI, and ARM with
    its dot product (``asimddp``, ``i8mm``), add in 32 bits.
    """
    return "avx2" in isa and not _VNNI & set(isa)
