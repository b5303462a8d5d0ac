"""Tests of `graph`: what an ONNX file holds, counted by hand and by torch; broken files refused."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from onnx import helper
from tiny_densenet import TINY_PREPROCESS, tiny_model

from deploy_kit.base.errors import InputError, RequestError
from deploy_kit.graph import onnx_bounds, onnx_file
from deploy_kit.records.artifacts import Preprocess, TensorSpec

CONV = "g (float[1,2,8,8] x) => (float[1,6,4,4] y) { y = Conv<strides=[2,2], pads=[1,1,1,1], group=2>(x, w) }"
GEMM = "g (float[1,5] x) => (float[1,3] y) { y = Gemm<transB=1>(x, w) }"
MATMUL = "g (float[1,5] x) => (float[1,3] y) { y = MatMul(x, w) }"
FLAT = "g (float[N,1,16,16] x) => (float[N,256] y) { y = Flatten(x) }"
RELU = "g (float[N,1,16,16] x) => (float[N,1,16,16] y) { y = Relu(x) }"


def saved(model: ir.Model, path: Path) -> Path:
    onnx_file.save(model, path)
    return path


def macs_by_torch(model: torch.nn.Module, x: torch.Tensor) -> int:
    """Count multiply-accumulates of one image where torch runs them: out pixels × kernel elements of each layer."""
    counted = []

    def count(layer: torch.nn.Module, _: object, out: torch.Tensor) -> None:
        pixels = out[0, 0].numel() if isinstance(layer, torch.nn.Conv2d) else 1
        counted.append(layer.weight.numel() * pixels)

    for layer in model.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(count)
    model(x)
    return sum(counted)


def test_model_survives_saving_and_loading(tmp_path: Path) -> None:
    path = saved(tiny_graphs.exported_model(), tmp_path / "model.onnx")
    x = tiny_graphs.images()

    (again,) = tiny_graphs.evaluate(onnx_file.load(path), x)

    assert np.array_equal(again, tiny_graphs.evaluate(tiny_graphs.exported_model(), x)[0])


def test_onnx_file_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    path = saved(tiny_graphs.exported_model(), tmp_path / "model.pth")

    assert onnx_bounds.is_onnx(path)


@pytest.mark.parametrize("data", [b"", b"\x08", b"PK\x03\x04", b"\x80\x02", b"{}", b"\x08\xff"])
def test_other_bytes_are_not_onnx(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)

    assert not onnx_bounds.is_onnx(tmp_path / "model.onnx")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.onnx: no such file") as caught:
        onnx_file.load(tmp_path / "absent.onnx")

    assert caught.value.hint == "check the path"


@pytest.mark.parametrize("share", [0.2, 0.6, 0.99])
def test_cut_off_file_is_not_whole(share: float, tmp_path: Path) -> None:
    data = tiny_graphs.exported()[1]
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(InputError, match=r"cut\.onnx: not a whole ONNX file") as caught:
        onnx_file.load(tmp_path / "cut.onnx")

    assert "export it again" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"\x08\x0a"], ids=["empty", "version alone"])
def test_file_without_a_graph_is_not_a_valid_model(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)

    with pytest.raises(InputError, match=r"model\.onnx: not a valid ONNX model"):
        onnx_file.load(tmp_path / "model.onnx")


def test_graph_that_reads_a_tensor_nobody_makes_is_not_valid(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["nowhere"], ["y"])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [y])), tmp_path / "model.onnx")

    with pytest.raises(InputError, match=r"not a valid ONNX model: .*nowhere"):
        onnx_file.load(tmp_path / "model.onnx")


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("these are notes and no protobuf")

    with pytest.raises(InputError, match=r"notes\.txt: not a whole ONNX file"):
        onnx_file.load(tmp_path / "notes.txt")


def test_saving_keeps_weights_in_the_one_file(tmp_path: Path) -> None:
    saved(tiny_graphs.exported_model(), tmp_path / "model.onnx")

    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_opset_is_the_default_domains() -> None:
    assert onnx_file.opset(tiny_graphs.parse(RELU, opset=17)) == 17


def test_nodes_and_operators_are_counted() -> None:
    model = tiny_graphs.parse("g (float[4] x) => (float[4] y) { a = Relu(x) b = Relu(a) y = Add(a, b) }")

    assert onnx_file.nodes(model) == 3
    assert onnx_file.operators(model) == {"Relu": 2, "Add": 1}


@pytest.mark.parametrize(
    ("text", "shape", "by_hand"),
    [
        (CONV, (6, 1, 3, 3), 6 * 1 * 9 * 4 * 4),
        (GEMM, (3, 5), 15),
        (MATMUL, (5, 3), 15),
    ],
    ids=["grouped convolution", "gemm", "matmul"],
)
def test_multiply_accumulates_are_those_worked_out_by_hand(text: str, shape: tuple[int, ...], by_hand: int) -> None:
    model = tiny_graphs.parse(text, w=np.ones(shape))

    assert onnx_file.macs(model) == by_hand


def test_multiply_accumulates_of_the_tiny_densenet_are_those_that_torch_runs() -> None:
    assert onnx_file.macs(tiny_graphs.exported_model()) == macs_by_torch(tiny_model(), torch.zeros(1, 1, 16, 16))


def test_multiply_accumulates_do_not_grow_with_the_batch() -> None:
    one = tiny_graphs.parse(CONV, w=np.ones((6, 1, 3, 3)))
    five = tiny_graphs.parse(CONV.replace("float[1,", "float[5,"), w=np.ones((6, 1, 3, 3)))

    assert onnx_file.macs(five) == onnx_file.macs(one)


def test_parameters_are_the_numbers_in_floating_point_weights() -> None:
    model = tiny_model()
    floats = sum(tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    # The exporter gives every convolution a bias, of zeros where the network has none.
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d) and module.bias is None]

    assert onnx_file.parameters(tiny_graphs.exported_model()) == floats + sum(c.out_channels for c in convolutions)


def test_weights_that_are_stated_by_their_shape_are_parameters() -> None:
    text = """<ir_version: 8, opset_import: ["" : 13]>
    g (float[1,2,8,8] x) => (float[1,6,6,6] y) <int64[4] s = {6, 2, 3, 3}> { w = ConstantOfShape(s) y = Conv(x, w) }"""

    assert onnx_file.parameters(ir.from_proto(onnx.parser.parse_model(text))) == 6 * 2 * 3 * 3


@pytest.mark.parametrize(
    ("text", "dtype", "precision"),
    [
        (CONV, np.float32, "fp32"),
        (CONV.replace("float[", "float16["), np.float16, "fp16"),
        (CONV.replace("float[", "bfloat16["), ir.DataType.BFLOAT16.numpy(), "bf16"),
        (RELU, np.float32, "fp32"),
    ],
    ids=["fp32", "fp16", "bf16", "no weight"],
)
def test_precision_is_the_type_of_the_weights(text: str, dtype: type, precision: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 22]> {text}')
    weight = ir.tensor(np.ones((6, 1, 3, 3)).astype(dtype), name="w")
    proto.graph.initializer.append(ir.serde.serialize_tensor(weight))

    assert onnx_file.precision(ir.serde.deserialize_model(proto)) == precision


def test_graph_that_quantizes_is_int8() -> None:
    model = tiny_graphs.parse(
        "g (float[1,5] x) => (float[1,5] y)"
        "<float s = {0.1}, uint8 z = {0}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    )

    assert onnx_file.precision(model) == "int8"


def test_inputs_and_outputs_are_described_with_names_of_open_axes() -> None:
    model = tiny_graphs.parse(RELU)

    assert onnx_file.specs(tuple(model.graph.inputs)) == (TensorSpec(name="x", dtype="float", shape=("N", 1, 16, 16)),)


def test_axis_without_a_name_is_described_too() -> None:
    model = tiny_graphs.parse(RELU.replace("N", "?"))

    assert onnx_file.specs(tuple(model.graph.inputs))[0].shape == ("?", 1, 16, 16)


def test_embedded_preprocess_is_read_from_the_file(tmp_path: Path) -> None:
    what = Preprocess(height=9, width=7, color="bgr", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0), resize=12)
    model = tiny_graphs.exported_model()

    onnx_file.embed(model, what)

    assert onnx_file.preprocess(onnx_file.load(saved(model, tmp_path / "model.onnx"))) == what


def test_file_without_preprocess_gives_none() -> None:
    assert onnx_file.preprocess(tiny_graphs.parse(RELU)) is None


@pytest.mark.parametrize("text", ['{"height": 16', '{"hight": 16}', "[]", "null"])
def test_embedded_preprocess_that_cannot_be_read_is_refused(text: str) -> None:
    model = tiny_graphs.parse(RELU)
    model.metadata_props[onnx_file.PREPROCESS_KEY] = text

    with pytest.raises(RequestError, match=onnx_file.PREPROCESS_KEY):
        onnx_file.preprocess(model)


def test_fitting_input_is_accepted() -> None:
    onnx_file.expect_input(tiny_graphs.parse(FLAT), TINY_PREPROCESS, Path("model.onnx"))
    onnx_file.expect_classes(tiny_graphs.parse(FLAT), Path("model.onnx"))


def test_output_that_is_no_row_of_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"model\.onnx: expected one output N×classes, found y \['N', 1, 16, 16\]"):
        onnx_file.expect_classes(tiny_graphs.parse(RELU), Path("model.onnx"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (RELU.replace("1,16,16", "3,16,16"), r"x \['N', 3, 16, 16\]"),
        (RELU.replace("1,16,16", "1,16,24"), r"x \['N', 1, 16, 24\]"),
        ("g (float[256] x) => (float[256] y) { y = Relu(x) }", r"x \[256\]"),
        ("g (float[N,1,16,16] a, float[N,1,16,16] b) => (float[N,1,16,16] y) { y = Add(a, b) }", "a .*, b "),
        ("g () => (float[1] y) { y = Constant<value_floats = [1.0]>() }", "none"),
    ],
    ids=["channels", "width", "rank", "two inputs", "no input"],
)
def test_other_input_is_refused_with_what_was_expected(text: str, found: str) -> None:
    model = tiny_graphs.parse(text)

    with pytest.raises(InputError, match=rf"model\.onnx: expected one input N×1×16×16, found {found}") as caught:
        onnx_file.expect_input(model, TINY_PREPROCESS, Path("model.onnx"))

    assert caught.value.hint == "the preprocessing and the model do not belong together"


def test_input_with_channels_last_is_refused_with_how_to_export_it() -> None:
    model = tiny_graphs.parse(RELU.replace("1,16,16", "16,16,1"))

    with pytest.raises(InputError, match=r"expected one input N×1×16×16, found x \['N', 16, 16, 1\]") as caught:
        onnx_file.expect_input(model, TINY_PREPROCESS, Path("model.onnx"))

    assert caught.value.hint == "its channels come last: export it channels first (tf2onnx: --inputs-as-nchw x)"


def test_weights_listed_among_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    """Files of IR version 3 list every weight among the inputs too."""
    proto = ir.serde.serialize_model(tiny_graphs.parse(CONV, w=np.ones((6, 1, 3, 3))))
    proto.graph.input.append(helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [6, 1, 3, 3]))
    onnx.save(proto, tmp_path / "model.onnx")
    what = Preprocess(height=8, width=8, color="gray", mean=(0.5,), std=(0.5,))

    with pytest.raises(InputError, match=r"found x \[1, 2, 8, 8\]$"):
        onnx_file.expect_input(onnx_file.load(tmp_path / "model.onnx"), what, Path("model.onnx"))


@pytest.mark.parametrize("text", ["{", "[1]", '{"y": "far"}'])
def test_ranges_that_are_no_numbers_are_refused(text: str) -> None:
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)
    model.metadata_props[onnx_file.RANGES_KEY] = text

    with pytest.raises(InputError, match=r"metadata 'deploykit\.ranges' is no table of numbers"):
        onnx_file.ranges(model)


def test_graph_within_a_graph_is_refused_with_its_node() -> None:
    inner = tiny_graphs.parse("g () => (float[2] z) <float[2] one = {1, 1}> { z = Identity(one) }", 18).graph
    branches = {"then_branch": inner, "else_branch": inner}
    value = ir.Value(name="b", type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape(()))
    node = ir.node("If", [value], branches, name="choice")
    model = ir.Model(ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 18}), ir_version=10)

    with pytest.raises(InputError, match=r"m\.onnx: If 'choice' holds a graph of its own") as caught:
        onnx_file.expect_flat(model, Path("m.onnx"))

    assert caught.value.hint == "export the model without control flow, e.g. traced in eval mode"
