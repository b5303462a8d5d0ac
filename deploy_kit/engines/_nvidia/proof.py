"""The types that a plan really computes in: from the engine inspector on a GPU, else from the text inside the plan.

A plan of TensorRT-RTX contains text that types every tensor and names every kernel, one per line::

    tensor={ … name="x" … type=int8 }
    corrltn={ name="node_conv2d_7" output={"y" …} input={"x" "w" …} …                    a convolution
    function={ name=__myl_MulAddReluMulMinMaxRounCast … input_args={"y" …} …              a generated pointwise kernel

Constants name the size of their payload. Scratch space is typed int8 whatever the network is, and is not counted.
A kernel's name states what it computes: the one above scales, adds and clips, then quantizes. A kernel that only
finishes an integer convolution, or only quantizes, is there for int8 alone; one that also concatenates or normalizes is
not.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from deploy_kit.engines import _cuda
from deploy_kit.engines._nvidia import Flavour, LibraryMessages, flavour_module, passport
from deploy_kit.records.artifacts import Proof

Census = tuple[tuple[str, str, int], ...]
_TENSOR = re.compile(rb"\btensor=\{([^\n]*) type=(\w+) \}")
_NAMED = re.compile(rb'tensor=\{[^\n]*? name="([^"]*)"[^\n]* type=(\w+) \}')  # views (``sub_tensor``) have types too
_SHAPES = frozenset({b"int32", b"int64", b"bool"})  # arithmetic on shapes, where an input is open
_SCRATCH, _CONSTANT = b"is_scratchspace=1", b"const_payload_size="
_VIEW = re.compile(rb'\bsub_tensor=\{ base="([^"]*)"[^\n]*? name="([^"]*)"')
_GENERATED = re.compile(rb"\bfunction=\{ ?name=(\w+)(?:[^\n]*? input_args=\{([^}\n]*)\})?")
_CONVOLUTION = re.compile(rb'^ +corrltn=\{ name="[^"]*" output=\{"([^"]*)"[^\n]*?\binput=\{"([^"]*)"', re.M)
_LIBRARY = re.compile(rb'^ +(corrltn|fully_connected|maxpool|avgpool)=\{ name="[^"]*" [^\n]*?\binput=\{"([^"]*)"', re.M)
_KINDS = {b"corrltn": "Conv", b"fully_connected": "Gemm"}
_DTYPES = {b"float": "fp32", b"half": "fp16", b"bf16": "bf16", b"int8": "int8"}
_QUANTIZER = b"__myl_MulMinMaxRounCast"
_EPILOGUE = re.compile(rb"__myl_(Mul|Cast|Relu|MinMax|Roun)*(Add(Mul|Cast|Relu|MinMax|Roun)*)?")  # a 2nd Add is a BN's
FOR_INT8 = "pointwise, for int8 alone"
"""Kind of the kernels that only finish an integer convolution, or only quantize."""

_FEW = 4  # int8 convolutions for each such kernel, above which the kernels are too few to warn of
_INSPECTED = {"half": "fp16", "fp16": "fp16", "float": "fp32", "fp32": "fp32", "int8": "int8", "bf16": "bf16",
              "bfloat16": "bf16"}  # fmt: skip
_NETWORK_ONLY = "the plan holds no readable text: only the network's types are known"


def prove_plan(
    flavour: Flavour, plan: bytes, network: Census, bindings: tuple[tuple[str, str], ...], note: str = ""
) -> Proof:
    """Prove a plan's precision by the best source there is.

    The engine inspector describes what will run, but needs a GPU of the right kind. Without one the text inside the
    plan is read; where it cannot be read either, only the types of the network before the build are known.

    Args:
        flavour: Library that built the plan.
        plan: Content of the plan.
        network: Layers of the typed network, counted by type.
        bindings: Inputs and outputs with their dtypes.
        note: Remark to add to the proof.
    """
    proof = None if _cuda.device_or_none() is None else _proof_by_inspector(flavour, plan)
    if proof is None or not proof.counts:
        proof = proof_from_text(plan, f"{flavour.title} plan text")
    remark = "; ".join(filter(None, [proof.remark, note]))
    return Proof(
        source=proof.source if proof.counts else "typed network only",
        counts=proof.counts,
        remark=remark,
        kernels=proof.kernels,
        network=network,
        bindings=bindings,
        advice=int8_advice(proof.kernels, proof.counts),
    )


def prove_file(flavour: Flavour, plan_file: Path) -> Proof:
    """Return the proof in a plan's passport, after checking that the plan is unchanged; without a passport, prove it.

    Raises:
        BuildError: The plan is missing or damaged.
    """
    known = passport.read_plan_passport(plan_file)
    return known[1] if known else prove_plan(flavour, plan_file.read_bytes(), (), ())


def proof_from_text(plan: bytes, source: str) -> Proof:
    """Count tensors and convolutions of a plan by dtype, and its kernels by kind, from the text inside it.

    Args:
        plan: Content of the plan.
        source: Source to name in the proof.
    """
    counts: Counter[tuple[str, str]] = Counter()
    dtypes = {name: _DTYPES.get(dtype, dtype.decode()) for name, dtype in _NAMED.findall(plan)}
    for body, dtype in _TENSOR.findall(plan):
        kind = _DTYPES.get(dtype, dtype.decode())
        if _SCRATCH not in body:  # it is typed int8 in a float32 plan too, and would count as int8 activations
            role = "shape" if dtype in _SHAPES else "weight" if _CONSTANT in body else "activation"
            counts[role, kind] += 1
    if not counts:
        return Proof(source=source, counts=(), remark=_NETWORK_ONLY)
    kernels: Counter[str] = Counter()
    for kind, first in _LIBRARY.findall(plan):
        kernels[_KINDS.get(kind, kind.decode())] += 1
        # A kernel has no type of its own in the text: it computes in that of its first input.
        if kind in _KINDS and first in dtypes:
            counts[_KINDS[kind], dtypes[first]] += 1
    integers = _written_by_int8(plan, dtypes)
    for name, read in _GENERATED.findall(plan):
        finishes = _EPILOGUE.fullmatch(name) and integers & _quoted_names(read)
        kernels[FOR_INT8 if finishes or name == _QUANTIZER else "pointwise"] += 1
    return Proof(
        source=source,
        counts=_count_rows(counts),
        remark="read from the plan; not run",
        kernels=tuple(sorted(kernels.items())),
    )


def _written_by_int8(plan: bytes, dtypes: dict[bytes, str]) -> frozenset[bytes]:
    """Return the names of the tensors that integer convolutions write, and of the views of them."""
    bases = {view: base for base, view in _VIEW.findall(plan)}
    written = {bases.get(y, y) for y, x in _CONVOLUTION.findall(plan) if dtypes.get(x) == "int8"}
    return frozenset(written | {view for view, base in bases.items() if base in written})


def _quoted_names(arguments: bytes) -> set[bytes]:
    return set(re.findall(rb'"([^"]*)"', arguments))


def proof_from_inspector(text: str, source: str) -> Proof:
    """Count the layers of an engine by dtype, and its kernels by kind, from its inspector's JSON.

    Args:
        text: JSON that the engine inspector gave.
        source: Source to name in the proof.
    """
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    counts: Counter[tuple[str, str]] = Counter()
    for layer in layers:
        dtype = _layer_dtype(layer)
        if dtype:
            counts["Conv" if "convolution" in _layer_kind(layer).lower() else "layer", dtype] += 1
    kernels = Counter(_layer_kind(layer) for layer in layers)
    remark = "" if layers else "the inspector names no layer: build with profiling_verbosity 'detailed'"
    return Proof(source=source, counts=_count_rows(counts), remark=remark, kernels=tuple(sorted(kernels.items())))


def int8_advice(kernels: Iterable[tuple[str, int]], counts: Census) -> str:
    """Return the warning that int8 may not pay, before any GPU has run the plan; empty if the kernels are few."""
    by_kind = dict(kernels)
    n_int8 = sum(n for kind, dtype, n in counts if (kind, dtype) == ("Conv", "int8"))
    extra = by_kind.get(FOR_INT8, 0)
    if not extra or extra * _FEW < n_int8:
        return ""
    return (
        f"int8 may not pay here: beside {n_int8} int8 convolutions the plan launches "
        f"{extra + by_kind.get('pointwise', 0)} pointwise kernels, {extra} of them for int8 alone; "
        "build fp16 too and measure both"
    )


def _proof_by_inspector(flavour: Flavour, plan: bytes) -> Proof | None:
    """Ask the engine inspector; None where the engine does not load on this machine."""
    trt = flavour_module(flavour)
    engine = trt.Runtime(LibraryMessages(trt).logger).deserialize_cuda_engine(plan)
    if engine is None:
        return None
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return proof_from_inspector(text, f"{flavour.title}'s engine inspector")


def _layer_kind(layer: dict[str, Any]) -> str:
    return str(layer.get("ParameterType") or layer.get("LayerType") or "unnamed")


def _layer_dtype(layer: dict[str, Any]) -> str:
    """Return the type that a layer computes in: that of its weights, else of its first input, else of its output."""
    weights = layer.get("Weights")
    texts = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    tensors = [tensor for side in ("Inputs", "Outputs") for tensor in layer.get(side, [])]
    texts += [str(tensor.get("Format/Datatype", "")) for tensor in tensors]
    for text in texts:
        for word in re.findall(r"[A-Za-z]+\d*", text):
            if word.lower() in _INSPECTED:
                return _INSPECTED[word.lower()]
    return ""


def _count_rows(counts: Counter[tuple[str, str]]) -> Census:
    return tuple((kind, dtype, n) for (kind, dtype), n in sorted(counts.items()))
