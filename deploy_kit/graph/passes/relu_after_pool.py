"""Run a ReLU behind a max pool instead of in front of it: max(0, ·) is monotone, so it commutes with a maximum.

    maxpool(max(0, x)) = max(0, maxpool(x))

Bit-exact, and the ReLU reads a quarter of the pixels. Padding does not matter: a max pool never returns it
where each of its windows holds a pixel.
"""

from collections import Counter

import onnx_ir as ir

from deploy_kit.graph import edit
from deploy_kit.graph.passes import Outcome, Pass


def apply(model: ir.Model) -> Outcome:
    """Swap every max pool with the ReLU that alone feeds it."""
    fired, refused = 0, Counter[str]()
    for pool in tuple(model.graph):
        while (relu := _feeding(pool)) is not None:
            reason = _refusal(relu, pool)
            if reason:
                refused[reason] += 1
                break
            edit.swap(model, relu, pool, pool.outputs[0].shape)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


def _feeding(pool: ir.Node) -> ir.Node | None:
    """Return the ReLU that feeds a max pool; None if either is another operator."""
    source = pool.inputs[0] if pool.op_type in ("MaxPool", "GlobalMaxPool") else None
    relu = source.producer() if source is not None else None
    return relu if relu is not None and relu.op_type == "Relu" else None


def _refusal(relu: ir.Node, pool: ir.Node) -> str:
    """Return why the two cannot change places; empty if they can."""
    if len(pool.outputs) > 1:
        return "the pool gives indices too"
    if not edit.alone(relu.outputs[0]):
        return "the ReLU feeds others too"
    return "a window of the pool may hold padding alone" if edit.misses(pool) else ""


PASS = Pass(apply=apply, promise=0.0)
