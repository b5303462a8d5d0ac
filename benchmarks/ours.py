"""Deploykit's candidates: one row a file and engine. To judge a new scheme or pass list, add a row here."""

from benchmarks.candidates import Candidate, Ours
from deploy_kit import recipe

LEAN = recipe.load("default").simplify.passes
_FIRST = ("fold_constants", "drop_identities", "drop_single_concats", "fold_batchnorm", "fold_batchnorm_into_next")
_LAST = ("merge_duplicates", "remove_unused")
SWAPPED = (*_FIRST, "pool_before_conv", *_LAST)
CHAINED = (*_FIRST, "pool_before_conv", "chain_concats", "relu_after_pool", *_LAST)
MAXED = (*_FIRST, "pool_before_conv", "chain_concats", "relu_after_pool", "batchnorm_to_max", *_LAST)

_NNCF = Ours(passes=CHAINED, scheme="int8_nncf", options={"ranges": "minmax"})
CANDIDATES = (
    Candidate(name="lean@ort", file=Ours(passes=LEAN), engine="onnxruntime"),
    Candidate(name="chained@ort", file=Ours(passes=CHAINED), engine="onnxruntime"),
    Candidate(name="int8-ort@ort", file=Ours(passes=CHAINED, scheme="int8_ort"), engine="onnxruntime"),
    Candidate(name="lean@ov", file=Ours(passes=LEAN), engine="openvino"),
    Candidate(name="maxed@ov", file=Ours(passes=MAXED), engine="openvino"),
    Candidate(
        name="maxed-bf16@ov", file=Ours(passes=MAXED), engine="openvino", options={"inference_precision": "bf16"}
    ),
    Candidate(name="int8-ort@ov", file=Ours(passes=CHAINED, scheme="int8_ort"), engine="openvino"),
    Candidate(name="int8-nncf@ov", file=_NNCF, engine="openvino"),
)

REWRITES = {"lean": LEAN, "swapped": SWAPPED, "chained": CHAINED, "maxed": MAXED}
"""Pass lists that are held against the stock export in float, by name."""


def quantized() -> dict[str, Ours]:
    """Give each INT8 file once, under the name of its first candidate without the engine."""
    found: dict[str, Ours] = {}
    for candidate in CANDIDATES:
        if candidate.int8 and isinstance(candidate.file, Ours) and candidate.file not in found.values():
            found[candidate.name.partition("@")[0]] = candidate.file
    return found
