"""Deploykit's candidates: one row a file and engine. To judge a new scheme or pass list, add a row here."""

from benchmarks.candidates import Candidate, Ours
from deploy_kit import recipe

LEAN = recipe.load("default").simplify.passes

CANDIDATES = (
    Candidate(name="lean@ort", file=Ours(passes=LEAN), engine="onnxruntime"),
    Candidate(name="int8-ort@ort", file=Ours(passes=LEAN, scheme="int8_ort"), engine="onnxruntime"),
    Candidate(name="lean@ov", file=Ours(passes=LEAN), engine="openvino"),
    Candidate(name="lean-bf16@ov", file=Ours(passes=LEAN), engine="openvino", options={"inference_precision": "bf16"}),
    Candidate(name="int8-ort@ov", file=Ours(passes=LEAN, scheme="int8_ort"), engine="openvino"),
    Candidate(
        name="int8-nncf@ov", file=Ours(passes=LEAN, scheme="int8_nncf", options={"ranges": "minmax"}), engine="openvino"
    ),
)

REWRITES = {"lean": LEAN}
"""Pass lists that are held against the stock export in float, by name."""


def quantized() -> dict[str, Ours]:
    """Give each INT8 file once, under the name of its first candidate without the engine."""
    found: dict[str, Ours] = {}
    for candidate in CANDIDATES:
        if candidate.int8 and isinstance(candidate.file, Ours) and candidate.file not in found.values():
            found[candidate.name.partition("@")[0]] = candidate.file
    return found
