"""Run a ReLU behind a max pool instead of before it: max(0, ·) is monotone, so it commutes with a maximum.

    maxpool(max(0, x)) = max(0, maxpool(x))

Bit-exact, and the ReLU reads a quarter of the pixels. Padding does not matter: a max pool never returns it.
"""

from collections import Counter

import onnx_ir as ir

from deploy_kit.passes import Outcome, Pass, _edit


def apply(model: ir.Model) -> Outcome:
    """Swap every max pool with the ReLU that alone feeds it."""
    fired, refused = 0, Counter[str]()
    for pool in tuple(model.graph):
        source = pool.inputs[0] if pool.op_type in ("MaxPool", "GlobalMaxPool") else None
        relu = source.producer() if source is not None else None
        if relu is None or relu.op_type != "Relu":
            continue
        if len(pool.outputs) > 1:
            refused["the pool gives indices too"] += 1
        elif not _edit.alone(relu.outputs[0]):
            refused["the ReLU feeds others too"] += 1
        else:
            _edit.swap(model, relu, pool, pool.outputs[0].shape)
            fired += 1
    return Outcome(fired=fired, refused=tuple(sorted(refused.items())))


PASS = Pass(apply=apply, promise=0.0)
