"""``quantize --explain``: how INT8 treats each dense block, and what stays in float."""

from dataclasses import dataclass

from deploy_kit.cli._console import table
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.results import FloatNodes, QuantizedBlock

_HEADINGS = (
    "block", "channels", "scale", "zero", "half ranges: least, median, most", "BN + ReLU became",
    "never clip", "constant", "MMACs", "kB moved (estimate)",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ExplainedArtifact:
    """What ``--explain --json`` prints: the passport, each dense block, and what stays in float."""

    artifact: Artifact
    blocks: tuple[QuantizedBlock, ...]
    floats: tuple[FloatNodes, ...] = ()


def block_table(blocks: tuple[QuantizedBlock, ...]) -> str:
    """Lay out a line for each dense block."""
    if not blocks:
        return "nothing to explain: this scheme does not plan by blocks, or the graph concatenates nothing"
    return table(_HEADINGS, [_row(block) for block in blocks])


def float_table(floats: tuple[FloatNodes, ...]) -> str:
    """Lay out a line for each operator and reason; nothing where all computes on integers."""
    headings = ("in float", "nodes", "why", "e.g.")
    return table(headings, [(row.operator, str(row.n), row.why, row.first) for row in floats]) if floats else ""


def _row(block: QuantizedBlock) -> tuple[str, ...]:
    became = ((block.maxima, "maximum"), (block.depthwise, "depthwise"), (block.floating, "float"))
    after = f"left: {block.not_equalized}" if block.not_equalized else "→ 1 each"
    return (
        block.name,
        str(block.channels),
        f"{block.scale:.3g}" if block.concats == "int8" else block.concats,
        str(block.zero_point) if block.concats == "int8" else "–",
        f"{', '.join(f'{value:.3g}' for value in block.spread)} {after}",
        ", ".join(f"{n} {form}" for n, form in became if n) or "none",
        f"{block.never:.1%}",
        f"{block.always:.1%}",
        f"{block.macs / 1e6:,.1f}",
        f"{block.moved_bytes / 1e3:,.0f}",
    )
