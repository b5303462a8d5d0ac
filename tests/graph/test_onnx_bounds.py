"""Tests of `graph.onnx_bounds`: a small file that asks for endless work is refused before native code sees it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_cnns
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from deploy_kit.base.errors import DeployKitError, InputError
from deploy_kit.graph import onnx_file
from deploy_kit.graph.adoption import Stated, adopt


def field(number: int, data: bytes) -> bytes:
    """Write a field of a protobuf message that holds bytes."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def claimed(dims: list[int], kind: int = TensorProto.FLOAT, data: bytes = b"\0" * 4) -> onnx.ModelProto:
    model = small_cnns.small_cnn()
    model.graph.initializer[0].CopyFrom(TensorProto(name="w1", dims=dims, data_type=kind, raw_data=data))
    return model


def itself() -> onnx.ModelProto:
    model = small_cnns.with_function(2)
    model.functions[1].node[0].op_type, model.functions[1].node[0].domain = "f0", "own"
    return model


def filled(sides: list[int]) -> onnx.ModelProto:
    """Add numbers to the logits that are summed from a tensor of this shape."""
    model = small_cnns.small_cnn()
    model.graph.initializer.append(numpy_helper.from_array(np.array(sides, np.int64), "sides"))
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    model.graph.node.insert(0, helper.make_node("Expand", ["zero", "sides"], ["huge"], name="expand"))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0))
    small_cnns.node_of(model, "fc").output[0] = "raw"
    model.graph.node.append(helper.make_node("Add", ["raw", "sum"], ["logits"]))
    return model


def nested(levels: int) -> bytes:
    """Write a graph within a node within a graph, `levels` deep, without any library's own limit."""
    graph = field(2, b"g")
    for _ in range(levels):
        branch = field(1, b"then_branch") + field(6, graph) + varint(20 << 3) + b"\x05"
        graph = field(2, b"g") + field(1, field(4, b"If") + field(5, branch))
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "functions that double 26 times": (
        lambda: small_cnns.with_function(26).SerializeToString(),
        r"e\+0[78] nodes .* once its functions are inlined",
    ),
    "functions 500 deep": (
        lambda: small_cnns.with_function(500, calls=1).SerializeToString(),
        "functions call each other more than 64 deep",
    ),
    "a function that calls itself": (lambda: itself().SerializeToString(), "functions call each other more than 64"),
    "a tensor of 2^60 numbers in four bytes": (
        lambda: claimed([2**20, 2**20, 2**20]).SerializeToString(),
        r"tensor 'w1' of shape .* needs .* bytes, the file has 4",
    ),
    "a tensor that is shorter than its shape": (
        lambda: claimed([8, 3, 3, 3]).SerializeToString(), "tensor 'w1' of shape .* needs 864 bytes, the file has 4",
    ),
    "a negative side": (lambda: claimed([-8, 3]).SerializeToString(), r"tensor 'w1' has the shape \[-8, 3\]"),
    "an input of 2^60 pixels": (
        lambda: small_cnns.open_sizes(1, 3, 2**30, 2**30).SerializeToString(), "would hold .* numbers",
    ),
    "an activation of 2^40 numbers": (
        lambda: filled([2**20, 2**20]).SerializeToString(), "'huge' would hold 1.1e\\+12 numbers",
    ),
    "graphs 200 deep": (lambda: nested(200), "not a whole ONNX file"),
    "millions of empty nodes": (
        lambda: b"\x08\x08" + field(7, field(1, b"") * 6_000_000), "more than 2,000,000 fields in its messages",
    ),
    "a name that is not UTF-8": (
        lambda: small_cnns.small_cnn().SerializeToString().replace(b"logits", b"l\xff\xfeits"), "is not UTF-8",
    ),
    "an operator that is not UTF-8": (
        lambda: small_cnns.small_cnn().SerializeToString().replace(b"MaxPool", b"Max\xff\xfeol"), "is not UTF-8",
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind.startswith("millions") else []) for kind in HOSTILE]
)
def test_hostile_file_is_refused(kind: str, tmp_path: Path) -> None:
    make, says = HOSTILE[kind]
    (tmp_path / "hostile.onnx").write_bytes(make())

    with pytest.raises(InputError, match=says) as caught:
        adopt(tmp_path / "hostile.onnx", Stated())

    assert caught.value.hint


def test_functions_within_bounds_are_read(tmp_path: Path) -> None:
    path = small_cnns.saved(small_cnns.with_function(8), tmp_path)

    model = adopt(path, Stated()).model

    assert sum(node.op_type == "Relu" for node in model.graph) == 2**8 + 1


@pytest.mark.parametrize("key", [onnx_file.PREPROCESS_KEY, onnx_file.RANGES_KEY, "deploykit.units", "deploykit.int8"])
def test_metadata_nested_without_end_are_refused(key: str, tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    helper.set_model_props(model, {key: "[" * 100_000})
    loaded = onnx_file.load(small_cnns.saved(model, tmp_path))

    with pytest.raises(InputError, match=f"metadata '{key}' is not JSON") as caught:
        onnx_file.metadata(loaded, key)

    assert caught.value.hint


# Weights in a file of their own


def outside(folder: Path, location: str) -> Path:
    path = small_cnns.external(folder)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    return small_cnns.saved(model, folder)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.data", "a/../../secret.data", "", "link.data", "a\0b"])
def test_weights_outside_of_the_folder_are_refused(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.data").write_bytes(b"\0" * 10_000)
    (folder / "link.data").symlink_to(tmp_path / "secret.data")

    with pytest.raises(InputError, match="lie outside of its folder") as caught:
        onnx_file.load(outside(folder, location))

    assert "in the same folder, or as one file" in caught.value.hint


def test_missing_weights_are_named_and_found_once_they_are_there(tmp_path: Path) -> None:
    path = small_cnns.external(tmp_path)
    data = (tmp_path / "model.data").read_bytes()
    (tmp_path / "model.data").unlink()

    with pytest.raises(
        InputError, match=r"the data of tensor '\w+' lie in 'model\.data', which is not beside"
    ) as caught:
        onnx_file.load(path)

    assert caught.value.hint == f"an exporter wrote both files: put 'model.data' into {tmp_path}"
    (tmp_path / "model.data").write_bytes(data)
    onnx_file.load(path)


def test_weights_that_are_cut_off_are_refused(tmp_path: Path) -> None:
    path = small_cnns.external(tmp_path)
    (tmp_path / "model.data").write_bytes((tmp_path / "model.data").read_bytes()[:-8])

    with pytest.raises(InputError, match=r"needs [\d,]+ bytes from byte [\d,]+ of 'model\.data', which has") as caught:
        onnx_file.load(path)

    assert "copy 'model.data' again" in caught.value.hint


# Any file


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Bytes changed, cut out or doubled: the answer is a graph or an error with a name, whatever they were."""
    whole = bytearray(small_cnns.with_function(2).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(whole) - 1))
        length = data.draw(st.integers(1, 40))
        whole[at : at + length] = data.draw(
            st.one_of(st.binary(max_size=40), st.just(bytes(whole[at : at + length]) * 2), st.just(b""))
        )
    path = tmp_path_factory.mktemp("damaged") / "model.onnx"
    path.write_bytes(whole)

    try:
        adopt(path, Stated())
    except DeployKitError as error:
        assert str(error).startswith(f"{path}: ")
