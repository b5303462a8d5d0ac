"""Tests of the pickle machine: what pickles hold comes back, what they ask to run does not."""

import argparse
import collections
import enum
import functools
import importlib
import io
import logging
import pickle
import pickletools
import struct
import types
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import PICKLE_SAVERS, TORCH_SAVERS, Payload, payloads, weights, write, zip_bytes

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.formats import container
from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled.inert_values import Record, Unreadable
from deploy_kit.checkpoint.formats.pickled.numpy_arrays import Array
from deploy_kit.checkpoint.formats.pickled.torch_file import read_pickle

# A path is kept as its class and what it is made from, in parts or as a whole, as the Python that writes it does.
PATHS = [(f"{module}.PosixPath", parts) for module in ("pathlib", "pathlib._local") for parts in (("a", "b"), ("a/b",))]


class Optimizer(enum.Enum):
    SGD = "sgd"


class Reduced:
    """Pickled as `call(*arguments)`: how a member of an enum is written differs with Python's version."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.reduction = (call, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduction


def inert(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data), ReadLimits(len(data)))


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


# Each writes a file `marker` when a trusting reader takes it; {} is the shell command.
def hostile_pickles(marker: Path) -> dict[str, bytes]:
    command = f"touch '{marker}'"
    quoted = text(command)
    return {
        "REDUCE": b"\x80\x02cposix\nsystem\n" + quoted + b"\x85R.",
        "REDUCE by STACK_GLOBAL": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + quoted + b"\x85R.",
        "REDUCE in protocol 0": b"cposix\nsystem\n(V" + command.encode() + b"\ntR.",
        "REDUCE under Python 2's name": b"\x80\x02c__builtin__\neval\n" + text("1") + b"\x85R.",
        "INST": b"(V" + command.encode() + b"\niposix\nsystem\n.",
        "OBJ": b"\x80\x02(cposix\nsystem\n" + quoted + b"o.",
        "NEWOBJ": b"\x80\x02csubprocess\nPopen\n" + quoted + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n" + quoted + b"\x85}\x92.",
        "BUILD on a class": b"\x80\x02csite\nENABLE_USER_SITE\n}" + text("a") + b"K\x01sb.",
        "BUILD of a setter": b"\x80\x02carg\nparse\n)\x81}"
        + text("__setstate__")
        + b"cposix\nsystem\nsb"
        + quoted
        + b"b.",
        "partial, called": b"\x80\x02cfunctools\npartial\ncos\nsystem\n\x85R" + quoted + b"\x85R.",
        "getattr chain": (b"\x80\x02cbuiltins\ngetattr\nctorch\nhub\n" + text("load") + b"\x86R" + quoted + b"\x85R."),
        "torch.hub.load": b"\x80\x02ctorch.hub\nload\n" + text("a/b") + text("c") + b"\x86R.",
        "torch.load": b"\x80\x02ctorch\nload\n" + text("/tmp/other.pth") + b"\x85R.",
        "a module of torch": b"\x80\x02ctorch.serialization\nos.system\n" + quoted + b"\x85R.",
        "numpy.load": b"\x80\x02cnumpy\nload\n" + text("a.npy") + b"\x85R.",
        "numpy f2py": b"\x80\x02cnumpy.f2py\ncompile\n" + text("a") + b"\x85R.",
        "persistent id as text": b"\x80\x02Pposix.system\n.",
        "persistent id": b"\x80\x02" + quoted + b"Q.",
        "EXT1": b"\x80\x02\x82\x01.",
        "EXT2": b"\x80\x02\x83\x01\x00.",
        "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
        "eval as Paddle calls it": (
            b"\x80\x02cbuiltins\neval\n" + text("data") + b"}" + text("data") + quoted + b"s\x86R."
        ),
        "eval of something else": b"\x80\x02cbuiltins\neval\n" + quoted + b"\x85R.",
        "a type with a call of its own": (
            b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\ncbuiltins\nint\n" + quoted + b"\x85}tR."
        ),
        "bytes of 64 GiB": b"\x80\x02cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",
        "breakpoint": b"\x80\x02cbuiltins\nbreakpoint\n)R.",
        "exec in an object array": pickle.dumps(np.array([Payload(exec, "1")], dtype=object)),
    }


NAMES = sorted(hostile_pickles(Path("marker")))


@pytest.mark.parametrize("name", NAMES)
def test_plain_pickle_that_asks_for_code_is_refused_by_name(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "file.pkl", hostile_pickles(marker)[name])

    with pytest.raises(CheckpointError, match=r"file\.pkl: refused: .*its pickle asks for '") as caught:
        container.read_contents(path)

    assert caught.value.exit_code == 2
    assert not marker.exists()


@pytest.mark.parametrize("name", NAMES)
def test_zip_whose_pickle_asks_for_code_is_refused(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    path = write(tmp_path / "file.pth", zip_bytes({"a/data.pkl": hostile_pickles(marker)[name], "a/version": b"3"}))

    with pytest.raises(CheckpointError, match="refused"):
        container.read_contents(path)

    assert not marker.exists()


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("REDUCE", "posix.system"),
        ("torch.hub.load", "torch.hub.load"),
        ("NEWOBJ", "subprocess.Popen"),
        ("INST", "posix.system"),
        ("REDUCE under Python 2's name", "builtins.eval"),
        ("partial, called", "os.system"),
        ("getattr chain", "builtins.getattr"),
        ("EXT2", "extension 1"),
    ],
)
def test_what_a_hostile_pickle_asks_for_is_named(name: str, asked: str, tmp_path: Path) -> None:
    path = write(tmp_path / "file", hostile_pickles(tmp_path / "marker")[name])

    with pytest.raises(CheckpointError, match=f"asks for '{asked}'"):
        container.read_contents(path)


@pytest.mark.parametrize("name", ["REDUCE", "REDUCE by STACK_GLOBAL", "REDUCE in protocol 0", "INST", "OBJ"])
def test_hostile_pickles_do_bite_where_nobody_guards(name: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    pickle.loads(hostile_pickles(marker)[name])

    assert marker.exists()


@pytest.mark.parametrize("place", ["bare", "beside the weights", "nested"])
@pytest.mark.parametrize("function", ["os.system", "open"])
@pytest.mark.parametrize("kind", PICKLE_SAVERS)
def test_code_in_a_file_is_refused_and_never_run(kind: str, function: str, place: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    payload = payloads(marker)[function]
    data = {"bare": payload, "beside the weights": weights() | {"x": payload}, "nested": {"state_dict": [payload]}}
    PICKLE_SAVERS[kind](data[place], tmp_path / "file")

    with pytest.raises(CheckpointError, match=r"file: refused: .*(posix\.system|io\.open)"):
        container.read_contents(tmp_path / "file")

    assert not marker.exists()


def test_refusal_advises_no_way_to_run_the_code(tmp_path: Path) -> None:
    path = write(tmp_path / "file", hostile_pickles(tmp_path / "marker")["REDUCE"])

    with pytest.raises(CheckpointError) as caught:
        container.read_contents(path)

    assert "weights_only" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint.startswith("save the tensors alone")
    assert str(caught.value).isprintable()


def test_reading_imports_nothing_that_a_pickle_names(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, *_: Any) -> None:
        raise AssertionError(f"imported {name}")

    monkeypatch.setattr(importlib, "import_module", fail)
    record = inert(b"\x80\x02cantigravity_of_no_one\nNet\n)\x81}" + text("a") + b"K\x01sb.")

    assert isinstance(record, Record)
    assert record.attributes() == {"a": 1}


def test_unknown_class_becomes_a_record_of_its_state() -> None:
    record = inert(pickle.dumps(argparse.Namespace(lr=0.1, names=["a"])))

    assert isinstance(record, Record)
    assert record.kind == "argparse.Namespace"
    assert record.attributes() == {"lr": 0.1, "names": ["a"]}


def test_state_of_a_slotted_class_is_read_too() -> None:
    record = inert(b"\x80\x02cnet\nNet\n)\x81N}" + text("a") + b"K\x07s\x86b.")

    assert record.attributes() == {"a": 7}


def test_subclass_of_dict_keeps_its_items() -> None:
    data = b"\x80\x02clightning.AttributeDict\nAttributeDict\n)\x81" + text("lr") + b"K\x02s."

    record = inert(data)

    assert record.items == {"lr": 2}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -1, 255, 65535, 1 << 31, -(1 << 40), 1 << 100, 0.5, -1e300, "a", "ä€𝄞", b"", b"\x00\xff",
        [], [1, [2]], (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), {}, {"a": {1: (2,)}}, {(1, "a"): 2}, ["x"] * 300,
    ],
    ids=repr,
)  # fmt: skip
def test_plain_data_comes_back_as_pickle_itself_reads_it(value: Any, protocol: int) -> None:
    data = pickle.dumps(value, protocol)

    assert inert(data) == pickle.loads(data)


def test_shared_objects_stay_shared() -> None:
    one = [1]

    back = inert(pickle.dumps({"a": one, "b": one}))

    assert back["a"] is back["b"]


def test_recursive_list_is_read() -> None:
    endless: list[Any] = []
    endless.append(endless)

    back = inert(pickle.dumps(endless))

    assert back[0] is back


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    "value",
    [
        torch.optim.Adam([torch.zeros(2)]), range(3), datetime.now(timezone.utc), Path("runs/1"),
        types.SimpleNamespace(lr=0.1), functools.partial(torch.nn.BatchNorm2d, eps=1e-3), torch.nn.ReLU,
        logging.getLogger("train"), torch.device("cpu"), torch.__version__,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_trainers_keep_beside_the_weights_is_read_and_inert(value: Any, protocol: int, tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "beside": value}, tmp_path / "file", pickle_protocol=protocol)

    assert container.read_contents(tmp_path / "file").tensors.keys() == weights().keys()


def test_member_of_an_enum_cannot_be_told_from_a_call_and_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "beside": Reduced(Optimizer, "sgd")}, tmp_path / "file")

    with pytest.raises(CheckpointError, match=rf"asks for '{__name__}\.Optimizer'"):
        container.read_contents(tmp_path / "file")


def test_member_of_an_enum_written_by_its_name_is_read(tmp_path: Path) -> None:
    torch.save({"state_dict": weights(), "beside": Reduced(getattr, Optimizer, "SGD")}, tmp_path / "file")

    assert container.read_contents(tmp_path / "file").tensors.keys() == weights().keys()


def test_sets_and_frozensets_are_read() -> None:
    assert inert(pickle.dumps({1, 2}, 4)) == {1, 2}
    assert inert(pickle.dumps(frozenset({1}), 4)) == frozenset({1})
    assert sorted(inert(pickle.dumps({1, 2}, 2)).elements) == [1, 2]


@pytest.mark.parametrize("protocol", [2, 4])
def test_collections_paths_and_scalars_are_read(protocol: int) -> None:
    data = {
        "ordered": collections.OrderedDict(a=1),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1, 2]),
        "path": Path("a/b"),
        "scalar": np.float64(0.25),
        "size": torch.Size([2, 3]),
        "dtype": torch.float32,
    }

    back = inert(pickle.dumps(data, protocol))

    assert back["ordered"] == {"a": 1}
    assert back["counter"] == {"a": 2, "b": 1}
    assert back["default"] == {"a": [1]}
    assert back["deque"] in ([1, 2], []) or list(back["deque"]) == [1, 2]
    assert (back["path"].kind, back["path"].args) in PATHS
    assert back["scalar"] == 0.25
    assert back["size"] == (2, 3)
    assert str(back["dtype"]) == "torch.float32"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2", "<i8", "u1", "?"])
def test_numpy_arrays_come_back_bit_for_bit(dtype: str, protocol: int) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4).astype(dtype))

    back = inert(pickle.dumps(array, protocol))

    assert isinstance(back, Array)
    assert torch.equal(back.tensor(ReadLimits(0)), torch.from_numpy(array.astype(array.dtype.newbyteorder("="))))


@pytest.mark.parametrize(
    "array", [np.array([None, "a"], dtype=object), np.zeros(2, dtype=[("a", "f4")]), np.zeros(2, "M8[s]")]
)
def test_array_of_no_numbers_is_inert(array: np.ndarray) -> None:
    back = inert(pickle.dumps(array, 2))

    assert isinstance(back.tensor(ReadLimits(0)), Unreadable)


@pytest.mark.parametrize("kind", PICKLE_SAVERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_tensors_of_every_type_come_back(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    PICKLE_SAVERS[kind](weights() | {"extra": tensor}, tmp_path / "file")

    back = container.read_contents(tmp_path / "file").tensors["extra"]

    assert back.dtype == dtype
    assert torch.equal(back.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize("kind", PICKLE_SAVERS)
def test_views_of_a_shared_storage_come_back(kind: str, tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    views = {"a": whole[4:12].reshape(2, 4).T, "b": whole[::3], "c": whole[5], "d": whole[24:]}
    views["negated"] = torch._neg_view(whole[4:8])  # its storage is that of the others, with a bit beside it
    PICKLE_SAVERS[kind](weights() | views, tmp_path / "file")

    back = container.read_contents(tmp_path / "file").tensors

    assert all(torch.equal(back[name], tensor) for name, tensor in views.items())


@pytest.mark.parametrize("kind", TORCH_SAVERS)
def test_parameters_and_buffers_in_a_dict_come_back(kind: str, tmp_path: Path) -> None:
    saved = {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in weights().items()}
    TORCH_SAVERS[kind](saved, tmp_path / "file")

    back = container.read_contents(tmp_path / "file").tensors

    assert all(torch.equal(back[name], tensor) for name, tensor in saved.items())


def test_tensor_with_attributes_of_its_own_comes_back(tmp_path: Path) -> None:
    tensor = torch.arange(3.0)
    tensor.note = "made by hand"  # type: ignore[attr-defined]
    torch.save(weights() | {"extra": tensor}, tmp_path / "file")

    assert torch.equal(container.read_contents(tmp_path / "file").tensors["extra"], tensor)


def test_legacy_file_of_another_pickle_protocol_is_read(tmp_path: Path) -> None:
    saved = weights()
    torch.save(saved, tmp_path / "file", _use_new_zipfile_serialization=False, pickle_protocol=4)

    contents = container.read_contents(tmp_path / "file")

    assert contents.kind == "torch legacy"
    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in saved.items())


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: torch.quantize_per_tensor(torch.zeros(4, 4, 3, 3), 0.1, 0, torch.qint8), r"quantized \(qint8\)"),
        (lambda: torch.zeros(4, 4, 3, 3).to_sparse(), "a sparse tensor"),
        (lambda: torch.zeros(4, 4, 3, 3, device="meta"), "a meta tensor, without numbers"),
        (lambda: torch.zeros(4, 4, 3, 3).to(torch.float8_e4m3fn), r"a tensor of torch\.float8_e4m3fn"),
    ],
    ids=["quantized", "sparse", "meta", "float8"],
)
@pytest.mark.filterwarnings("ignore")  # torch's own, of sparse and quantized tensors
def test_weight_that_cannot_be_used_is_named_with_its_kind(
    make: Callable[[], torch.Tensor], what: str, tmp_path: Path
) -> None:
    torch.save(weights() | {"stem.weight": make()}, tmp_path / "file")

    with pytest.raises(CheckpointError, match=f"'stem.weight' is {what}; plain floating-point weights are expected"):
        container.read_contents(tmp_path / "file")


def test_array_of_objects_among_the_weights_is_named(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    data = pickle.dumps(arrays | {"stem.weight": np.array([None], dtype=object)})

    with pytest.raises(CheckpointError, match=r"'stem.weight' is a NumPy array of objects"):
        container.read_contents(write(tmp_path / "file", data))


@pytest.mark.parametrize("kind", [np.longdouble, "datetime64[s]", "U3", "complex256"])
def test_array_that_no_tensor_can_be_made_of_is_named(kind: Any, tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}
    data = pickle.dumps(arrays | {"stem.weight": np.zeros((4, 4, 3, 3), kind)})

    with pytest.raises(CheckpointError, match=r"'stem.weight' is a NumPy array of \w+"):
        container.read_contents(write(tmp_path / "file", data))


def test_functools_partial_that_is_kept_and_not_called_is_inert() -> None:
    record = inert(pickle.dumps(functools.partial(torch.nn.functional.relu, inplace=True)))

    assert record.kind == "functools.partial"


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02.",  # nothing on the stack
        b"\x80\x02R.",
        b"\x80\x02b.",
        b"\x80\x02K\x01K\x02R.",
        b"\x80\x02h\x05.",  # a memo that is empty
        b"\x80\x02t.",  # a mark that is missing
        b"\x80\x02K\x01\x87.",
        b"\x80\x02(K\x01d.",
        b"\x80\x02K\x01K\x02K\x03s.",
        b"\x80\x02]K\x01K\x02a",
        b"\x80\x02}]K\x01s.",  # a list as a key
        b"\x80\x04\x8c\x01a\x94",
        b"\x80\x05\x97.",  # buffers out of band
        b"\x80\x02S'unfinished\n.",
        b"\x80\x02ccollections\nOrderedDict\nK\x05\x85R.",
        b"\x80\x02cbuiltins\nbytes\n\x8a\x05\x00\x00\x00\x00\x10\x85R.",  # a size in place of bytes
    ],
)
def test_pickle_that_makes_no_sense_is_called_damaged(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"file: (truncated or incomplete|no state dict found)"):
        container.read_contents(write(tmp_path / "file", data))


def nested_tuples(depth: int) -> bytes:
    """Build t = (t, t) again and again: hashing the last one takes 2 ** depth steps."""
    return b"\x80\x02)" + b"2\x86" * depth


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02" + b"]" * 1_600_000 + b".", "takes more than 1,500,000 steps"),
        (b"\x80\x02" + b"(" * 1_600_000 + b".", "takes more than 1,500,000 steps"),
        (b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + bytes(1 << 20) + b"\x01.", "truncated or incomplete"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f\x01.", "truncated or incomplete"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60) + b"a.", "truncated or incomplete"),
        (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"a.", "truncated or incomplete"),
        (b"\x80\x05\x96" + struct.pack("<Q", (1 << 63) - 1) + b"a.", "truncated or incomplete"),
        (b"\x80\x02}" + nested_tuples(100)[2:] + b"K\x01s.", "a nested or long tuple as a key"),
        (b"\x80\x04\x8f(" + nested_tuples(100)[2:] + b"\x90.", "a nested or long tuple as a key"),
        (b"\x80\x02}\x8a\x10" + b"\x7f" * 16 + b"K\x01s.", "a huge number as a key"),
        (b"I" + b"9" * 5000 + b"\n.", "unknown bytes|plain text|truncated"),
    ],
    ids=["lists", "marks", "long", "long4", "bytes8", "text8", "bytearray8", "tuple key", "tuple set", "key", "digits"],
)
def test_pickle_made_to_exhaust_memory_or_time_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        container.read_contents(write(tmp_path / "file", data))


def test_dict_copied_again_and_again_is_refused(tmp_path: Path) -> None:
    """A memoized list of 100,000 pairs and a call that copies it, three bytes each."""
    pairs = b"(" + b"K\x01K\x02\x86" * 100_000 + b"lq\x01"
    data = b"\x80\x02ccollections\nOrderedDict\nq\x00" + pairs + b"h\x00h\x01\x85R0" * 5_000 + b"."

    with pytest.raises(CheckpointError, match="steps"):
        container.read_contents(write(tmp_path / "file", data))


def test_text_encoded_again_and_again_is_refused(tmp_path: Path) -> None:
    call = b"c_codecs\nencode\nq\x00" + text("a" * 1_000_000) + b"q\x01" + text("latin1") + b"q\x02"

    with pytest.raises(CheckpointError, match="unpacks to far more than its size"):
        container.read_contents(write(tmp_path / "file", b"\x80\x02" + call + b"h\x00h\x01h\x02\x86R" * 1_000 + b"."))


@pytest.mark.slow
def test_deeply_nested_pickle_is_read_or_refused_without_recursion(tmp_path: Path) -> None:
    data = b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b"."

    with pytest.raises(CheckpointError, match="no state dict found"):
        container.read_contents(write(tmp_path / "file", data))


def test_every_opcode_is_known_or_refused() -> None:
    from deploy_kit.checkpoint.formats.pickled import unpickle

    known = {opcode.name for opcode in pickletools.opcodes}

    assert known - set(unpickle._OPERATIONS) == {"NEXT_BUFFER", "READONLY_BUFFER"}
