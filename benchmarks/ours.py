"""Deploykit's candidates: one row a file and engine. To judge a new scheme or pass list, add a row here."""

from benchmarks.candidates import Candidate, Ours
from deploy_kit.graph import passes
from deploy_kit.machine import environment
from deploy_kit.recipe import targets

PASSES = passes.default_passes()
_LAST = ("merge_duplicates", "remove_unused")
_MAXED = (*PASSES[: -len(_LAST)], *targets.find_target("openvino").fp32, *_LAST)
_FIRST = tuple(name for name in PASSES if name not in ("pool_before_conv", "chain_concats"))

# As `quantize --int8` decides: where sums of two products are 16 bits wide, other files saturate.
_SUMS = {"reduce_range": True} if targets.narrow_sums(environment.describe_machine().isa) else {}
PORTABLE = Ours(passes=PASSES, scheme="int8_portable", options=_SUMS)
_DEPTHWISE = Ours(passes=PASSES, scheme="int8_portable", options={"form": "depthwise", **_SUMS})
CANDIDATES = (
    Candidate(name="fp32@ort", file=Ours(passes=PASSES), engine="onnxruntime"),
    Candidate(name="int8@ort", file=PORTABLE, engine="onnxruntime"),
    Candidate(name="int8-depthwise@ort", file=_DEPTHWISE, engine="onnxruntime"),
    Candidate(name="fp32@ov", file=Ours(passes=_MAXED), engine="openvino"),
    Candidate(name="bf16@ov", file=Ours(passes=_MAXED), engine="openvino", options={"inference_precision": "bf16"}),
    Candidate(name="int8@ov", file=PORTABLE, engine="openvino"),
    Candidate(name="int8-depthwise@ov", file=_DEPTHWISE, engine="openvino"),
    Candidate(name="fp32@ncnn", file=Ours(passes=PASSES), engine="ncnn"),
    Candidate(name="fp32@et", file=Ours(passes=PASSES), engine="executorch"),
    Candidate(name="int8@et", file=PORTABLE, engine="executorch"),
)

_AS_IT_STANDS = {"optimize": False}
SIMULATED = (
    Candidate(
        name="int8-tensorrt@simulated",
        file=Ours(passes=PASSES, scheme="int8_tensorrt"),
        engine="onnxruntime",
        options=_AS_IT_STANDS,
        simulated=True,
    ),
    Candidate(
        name="fp16-tensorrt@simulated",
        file=Ours(
            passes=PASSES, scheme="fp16", options={"passes": list(targets.find_target("tensorrt").passes("fp16"))}
        ),
        engine="onnxruntime",
        options=_AS_IT_STANDS,
        simulated=True,
    ),
)
"""TensorRT's graphs node by node, their arithmetic without TensorRT: what a GPU would answer but for its rounding."""

REWRITES = {
    "folded": _FIRST,
    "+ pools first": (*_FIRST[: -len(_LAST)], "pool_before_conv", *_LAST),
    "+ chained (default)": PASSES,
    "+ maxima": _MAXED,
}
"""Pass lists that are held against the stock export in float, by name."""


def quantized() -> dict[str, Ours]:
    """Return each INT8 file once, under the name of its first candidate without the engine."""
    found: dict[str, Ours] = {}
    for candidate in CANDIDATES:
        if candidate.int8 and isinstance(candidate.file, Ours) and candidate.file not in found.values():
            found[candidate.name.partition("@")[0]] = candidate.file
    return found
