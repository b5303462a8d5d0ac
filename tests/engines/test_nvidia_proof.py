"""What a plan is proved to compute in: from its text, from an inspector's words, from the typed network alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest

from deploy_kit.base.lazy import install_line, present
from deploy_kit.engines import tensorrt_rtx
from deploy_kit.engines._nvidia import proof

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
with_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))
GPUS = ["8.6", "8.9"]


def layer(kind: str, dtype: str, weights: str = "") -> dict[str, object]:
    """Write a layer as TensorRT's inspector does with detailed verbosity."""
    tensor = [{"Name": "x", "Location": "Device", "Dimensions": [1, 8, 4, 4], "Format/Datatype": dtype}]
    extra = {"ParameterType": "Convolution", "Weights": {"Type": weights, "Count": 72}} if weights else {}
    return {"Name": "l", "LayerType": kind, "Inputs": tensor, "Outputs": tensor} | extra


def inspected(*layers: object) -> proof.Proof:
    return proof.proof_from_inspector(json.dumps({"Layers": list(layers), "Bindings": ["input"]}), "the inspector")


def n_convolutions(path: Path) -> int:
    return sum(node.op_type == "Conv" for node in onnx.load(path).graph.node)


@with_rtx
@pytest.mark.parametrize(("name", "dtype"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8-symmetric", "int8")])
def test_a_plan_names_every_convolution_with_its_type(name: str, dtype: str, line: "Line") -> None:
    built = line.built(name, "tensorrt_rtx", compute_capabilities=GPUS)
    n = n_convolutions(line.store.path(line.graph(name)))

    assert built.proof is not None
    assert [row for row in built.proof.counts if row[0] == "Conv"] == [("Conv", dtype, n)]
    assert dict(built.proof.kernels)["Conv"] == n


@with_rtx
@pytest.mark.parametrize(("name", "dtype"), [("fp32", "fp32"), ("fp16", "fp16"), ("int8-symmetric", "int8")])
def test_the_typed_network_is_counted_too(name: str, dtype: str, line: "Line") -> None:
    built = line.built(name, "tensorrt_rtx", compute_capabilities=GPUS)
    n = n_convolutions(line.store.path(line.graph(name)))

    assert built.proof is not None
    assert [row for row in built.proof.network if row[0] == "Conv"] == [("Conv", dtype, n)]


@with_rtx
def test_kernels_for_int8_alone_are_told_apart_and_come_with_advice(line: "Line") -> None:
    built = line.built("int8-symmetric", "tensorrt_rtx", compute_capabilities=GPUS)

    assert built.proof is not None
    n = dict(built.proof.kernels)[proof.FOR_INT8]
    assert built.proof.advice.startswith("int8 may not pay here: beside ")
    assert built.proof.advice.endswith(f"{n} of them for int8 alone; build fp16 too and measure both")


def written(convolution: str, *kernels: tuple[str, str]) -> bytes:
    """Write a plan's text: one convolution of this type, "x" to "y", and kernels (name, what it reads)."""
    lines = [
        f'  tensor={{ name="x" dims={{ 1 }} type={convolution} }}',
        '  sub_tensor={ base="y" dims={ 1 } name="y^deref" rank0=0 type=half }',
        '  corrltn={ name="c" output={"y" } input={"x" "w" } stream=0 }',
        *(f'  function={{ name=__myl_{name} fqn=f args={{ "{x}" }} input_args={{ "{x}" }} }}' for name, x in kernels),
    ]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("convolution", "name", "reads", "alone"),
    [
        ("int8", "MulAddReluMulMinMaxRounCast", "y", True),
        ("int8", "MulCastAddRelu", "y", True),
        ("int8", "MulCastAddRelu", "y^deref", True),
        ("int8", "MulAddMulMinMaxRounCastCastMulReluMulMinMaxRounCast", "y", True),  # a ReLU between pairs of its own
        ("half", "MulMinMaxRounCast", "y", True),
        ("half", "MulAddRelu", "y", False),  # BN and ReLU
        ("int8", "MulAddRelu", "z", False),
        ("int8", "MulCastAddConcMulAddMulMinMaxRounCast", "y", False),
        ("int8", "MulCastAddMulAddMulMinMaxRounCast", "y", False),  # a BN stands behind
    ],
)
def test_a_kernel_is_for_int8_alone_that_finishes_an_integer_convolution(
    convolution: str, name: str, reads: str, alone: bool
) -> None:
    found = proof.proof_from_text(written(convolution, (name, reads)), "text")

    assert (proof.FOR_INT8 in dict(found.kernels)) is alone


@pytest.mark.parametrize(("extra", "advised"), [(0, False), (2, False), (3, True), (10, True)])
def test_one_kernel_for_four_integer_convolutions_is_worth_a_word(extra: int, advised: bool) -> None:
    kernels = (("Conv", 12), ("pointwise", 9), (proof.FOR_INT8, extra))

    said = proof.int8_advice(kernels, (("Conv", "int8", 10), ("Conv", "fp16", 2)))

    assert ("may not pay" in said) is advised


@with_rtx
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_float_plans_come_without_advice(name: str, line: "Line") -> None:
    built = line.built(name, "tensorrt_rtx", compute_capabilities=GPUS)

    assert built.proof is not None
    assert (built.proof.advice, proof.FOR_INT8 in dict(built.proof.kernels)) == ("", False)


def test_a_plan_without_text_leaves_the_typed_network_and_says_so() -> None:
    network = (("Conv", "fp16", 7),)

    found = proof.prove_plan(tensorrt_rtx._FLAVOUR, bytes(range(256)) * 64, network, (("input 'x'", "fp32"),))

    assert (found.source, found.counts, found.network) == ("typed network only", (), network)
    assert found.remark == "the plan holds no readable text: only the network's types are known"


def test_scratch_space_is_no_tensor_of_the_network() -> None:
    plan = b'  tensor={ name="s" is_scratchspace=1 type=int8 }\n  tensor={ name="x" dims={ 1 } type=half }\n'

    assert proof.proof_from_text(plan, "text").counts == (("activation", "fp16", 1),)


def test_arithmetic_on_shapes_is_no_activation() -> None:
    plan = b'  tensor={ name="n" dims={ 1 } type=int64 }\n  tensor={ name="x" dims={ 1 } type=half }\n'

    assert proof.proof_from_text(plan, "text").counts == (("activation", "fp16", 1), ("shape", "int64", 1))


def test_a_convolution_that_reads_a_view_is_typed_by_it() -> None:
    plan = (
        b'  tensor={ name="x" type=float }\n  sub_tensor={ base="x" dims={ 1 } name="x^deref" rank0=0 type=half }\n'
        b'  corrltn={ name="c" output={"y" } input={"x^deref" "w" } }\n'
    )

    assert ("Conv", "fp16", 1) in proof.proof_from_text(plan, "text").counts


@pytest.mark.parametrize(
    ("words", "dtype"),
    [
        ("Half", "fp16"),
        ("Row major linear FP32 format", "fp32"),
        ("Thirty-two wide channel vectorized row major Int8 format", "int8"),
        ("Half(64,1:8,8,8)", "fp16"),
        ("BFloat16", "bf16"),
    ],
)
def test_the_inspectors_words_for_a_type_are_understood(words: str, dtype: str) -> None:
    assert inspected(layer("PointWiseV2", words)).counts == (("layer", dtype, 1),)


def test_a_convolution_counts_by_its_weights() -> None:
    found = inspected(layer("CaskConvolution", "N/A due to dynamic shapes", weights="Int8"))

    assert found.counts == (("Conv", "int8", 1),)


def test_layers_are_counted_by_kind_as_kernels() -> None:
    found = inspected(layer("Reformat", "Half"), layer("Reformat", "Half"), layer("Pooling", "Half"))

    assert found.kernels == (("Pooling", 1), ("Reformat", 2))


def test_an_inspector_that_gives_names_only_says_what_to_build_with() -> None:
    found = inspected("conv1 + relu1", "conv2")

    assert (found.counts, found.remark) == (
        (),
        "the inspector names no layer: build with profiling_verbosity 'detailed'",
    )
