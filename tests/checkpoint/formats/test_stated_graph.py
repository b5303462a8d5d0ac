"""Tests of stated graphs in TorchScript and torch.export: torch itself writes the files, their facts are known."""

import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoint_files import TinyDenseNet, bytes_of, save_zip, tiny_net, write, zip_bytes
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import container

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning")  # its files are still about
IMAGES = torch.zeros(2, 3, 64, 64)
PLAIN = {
    "stem_stride": 2, "stem_pool": "max", "eps": 1e-3, "concat": "append", "transition_relu": True,
    "transition_pool": "avg", "final_relu": True, "activation": "relu", "outer_activation": "relu",
    "head_pool": "avg", "head_activation": "none", "dense_order": "norm_first", "transition_order": "norm_first",
    "final_order": "norm_first",
}  # fmt: skip
# Options of the net → what the facts differ in.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "new features first": ({"prepend": True}, {"concat": "prepend"}),
    "silu": ({"activation": functional.silu}, {"activation": "silu"}),
    "leaky": ({"activation": functional.leaky_relu}, {"activation": "leaky_relu", "slope": 0.01}),
    "no relu": (
        {"transition_relu": False, "final_relu": False},
        {"transition_relu": False, "final_relu": False, "transition_order": None, "final_order": None},
    ),
    "max": ({"transition_pool": functional.max_pool2d}, {"transition_pool": "max"}),
    "no stem pool": ({"stem_pool": "none"}, {"stem_pool": "none"}),
    "avg stem pool": ({"stem_pool": "avg"}, {"stem_pool": "avg"}),
    "mean": ({"head_pool": "mean"}, {}),
    "window": ({"head_pool": "view"}, {}),
    "max head": ({"head_pool": "max"}, {"head_pool": "max"}),
    "concat head": (
        {"head_pool": "max_avg", "final_relu": False},
        {"head_pool": "max_avg", "final_relu": False, "final_order": None},
    ),
    "flatten": ({"head_pool": "flatten"}, {"head_pool": "flatten"}),
    "sigmoid": ({"output": torch.sigmoid}, {"head_activation": "sigmoid"}),
    "softmax": ({"output": lambda x: functional.softmax(x, 1)}, {"head_activation": "softmax"}),
    "log_softmax": ({"output": lambda x: functional.log_softmax(x, 1)}, {"head_activation": "log_softmax"}),
}


def trace(net: nn.Module, path: Path) -> Path:
    torch.jit.trace(net, IMAGES, check_trace=False).save(str(path))
    return path


def export(net: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(net, (IMAGES,)), path)
    return path


WRITERS = {"TorchScript": trace, "torch.export": export}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated tracer
        return trace(tiny_net(), tmp_path_factory.mktemp("traced") / "file")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(tiny_net(), tmp_path_factory.mktemp("exported") / "file.pt2")


def read(kind: str, net: nn.Module, folder: Path) -> Contents:
    return container.read_contents(WRITERS[kind](net, folder / "file.pt2"))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", WRITERS)
def test_graph_states_the_facts(kind: str, case: str, tmp_path: Path) -> None:
    options, differing = CASES[case]

    facts = read(kind, tiny_net(**options), tmp_path).facts

    source = {"TorchScript": "TorchScript code", "torch.export": "torch.export graph"}[kind]
    assert facts == ArchitectureFacts(**PLAIN | differing, source=Source("file", source))


@pytest.mark.parametrize("kind", WRITERS)
def test_weights_are_those_of_the_module(kind: str, tmp_path: Path) -> None:
    net = tiny_net()

    contents = read(kind, net, tmp_path)

    assert contents.kind == kind
    assert contents.tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in net.state_dict().items())


class Wrapped(nn.Module):
    """A net with something before it."""

    def __init__(self, before: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.before = tiny_net(), before

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(self.before(x))
        return y


@pytest.mark.parametrize(
    ("before", "name"),
    [(lambda x: x * 2 - 1, "mul"), (lambda x: torch.tanh(x), "tanh"), (lambda x: x - torch.ones(3, 1, 1), "sub")],
    ids=["scaling", "tanh", "constant"],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_graph_that_computes_more_than_a_densenet_is_refused(
    kind: str, before: Callable[[Tensor], Tensor], name: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=rf"its graph computes .*'{name}'.* a DenseNet has no place") as caught:
        read(kind, Wrapped(before).eval(), tmp_path)

    assert caught.value.hint == "export it to ONNX with the framework it comes from, and give that file"


def test_operator_of_another_namespace_is_refused_by_its_own_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"its graph computes 'cos', for which a DenseNet has no place"):
        read("torch.export", Wrapped(torch.ops.prims.cos).eval(), tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_normalization_by_buffers_is_left_to_the_buffers(kind: str, tmp_path: Path) -> None:
    class Normalized(TinyDenseNet):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))
            self.register_buffer("std", torch.full((1, 3, 1, 1), 0.25))

        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x - self.mean) / self.std)

    contents = read(kind, Normalized().eval(), tmp_path)

    assert {"mean", "std"} <= contents.tensors.keys()
    assert contents.facts.stem_pool == "max"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": 2, "padding": 2}, "a convolution of dilation 2|padding 2"),
        ({"padding": 0}, "a convolution with kernel 3, stride 1 and padding 0"),
    ],
)
@pytest.mark.parametrize("kind", WRITERS)
def test_convolution_that_would_be_rebuilt_otherwise_is_refused(
    kind: str, options: dict[str, int], message: str, tmp_path: Path
) -> None:
    net = tiny_net(head_pool="avg")
    net.stem = nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.Conv2d(8, 8, 3, bias=False, **options))

    with pytest.raises(CheckpointError, match=f"its graph has .*({message}).*, which is not supported"):
        read(kind, net.eval(), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_stem_pool_of_another_window_is_refused(kind: str, tmp_path: Path) -> None:
    net = tiny_net(stem_pool="none")
    net.bn0 = nn.Sequential(net.bn0, nn.MaxPool2d(2))

    with pytest.raises(CheckpointError, match="its graph has the stem's pool with kernel 2, stride 2 and padding 0"):
        read(kind, net.eval(), tmp_path)


@pytest.mark.parametrize("kind", WRITERS)
def test_uneven_strides_are_given_for_each_axis(kind: str, tmp_path: Path) -> None:
    net = tiny_net()
    net.stem = nn.Conv2d(3, 8, 7, (2, 1), 3, bias=False)

    assert read(kind, net.eval(), tmp_path).facts.stem_stride == (2, 1)


def test_scripted_module_gives_its_weights_and_states_nothing(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            if x.sum() > 0:
                x = -x
            for conv in self.convs:
                x = conv(x)
            return x

    net = Branching().eval()
    torch.jit.script(net).save(str(tmp_path / "file"))

    contents = container.read_contents(tmp_path / "file")

    assert contents.tensors.keys() == net.state_dict().keys()
    assert contents.facts == ArchitectureFacts()
    assert contents.remarks == ("its code is no straight line of known operators: it states no facts",)


def test_frozen_module_says_why_it_has_no_weights(tmp_path: Path) -> None:
    torch.jit.freeze(torch.jit.trace(tiny_net(), IMAGES)).save(str(tmp_path / "file"))

    with pytest.raises(CheckpointError, match="a TorchScript module without weights: they were frozen into its code"):
        container.read_contents(tmp_path / "file")


def rewritten(path: Path, folder: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(path) as archive:
        members = {name: change(name, archive.read(name)) for name in archive.namelist()}
    return write(folder / "changed", zip_bytes(members))


def _doubling(step: str) -> bytes:
    """Write a forward pass whose value is twice as large after each statement."""
    lines = ["class Conv2d(Module):", "  def forward(self, x):", "    a = [x]", *[f"    a = {step}"] * 40]
    return "\n".join([*lines, "    return torch.cat(a, 1)", ""]).encode()


@pytest.mark.parametrize(
    "code",
    [
        b"class Conv2d(Module):\n  def forward(self, x):\n    return self.forward(x)\n",
        b"class Conv2d(Module):\n  def forward(self, x):\n    import os\n",
        b"class Conv2d(Module):\n  def forward(self, x):\n    return os.system('touch marker')\n",
        b"class Conv2d(Module):\n  pass\n",
        _doubling("[a, a]"),
        _doubling("a + a"),
        _doubling("(a, a)"),
    ],
    ids=range(7),
)
def test_code_of_any_kind_is_read_and_never_run(
    code: bytes, traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(traced, tmp_path, lambda name, data: code if "conv" in name else data)

    contents = container.read_contents(path)

    assert contents.facts == ArchitectureFacts()
    assert contents.forward is not None
    with pytest.raises(CheckpointError, match="its TorchScript code"):
        contents.forward.answers(IMAGES)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "code",
    [
        b"\x00", b"(" * 100_000, b"x = a" + b".b" * 100_000, b"x = 1" + b"+1" * 100_000, b"-" * 100_000,
        b"x" * (2 << 20),
    ],
    ids=range(6),
)  # fmt: skip
def test_code_that_is_no_code_is_refused(code: bytes, traced: Path, tmp_path: Path) -> None:
    path = rewritten(traced, tmp_path, lambda name, data: code if "conv" in name else data)

    with pytest.raises(CheckpointError, match=r"is not TorchScript.s code|bytes of code"):
        container.read_contents(path)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[]", b"{", b"[" * 100_000, b'{"config": {"a": {}}}', b'{"config": [1]}', b"\xff\xfe"],
)
@pytest.mark.parametrize("member", ["models/model.json", "data/weights/model_weights_config.json"])
def test_exported_program_that_makes_no_sense_is_called_damaged(
    member: str, text: bytes, exported: Path, tmp_path: Path
) -> None:
    path = rewritten(exported, tmp_path, lambda name, data: text if member in name else data)

    with pytest.raises(CheckpointError, match=r"truncated or incomplete|archive without weights"):
        container.read_contents(path)


def test_exported_graph_of_another_schema_gives_its_weights_and_states_nothing(exported: Path, tmp_path: Path) -> None:
    path = rewritten(exported, tmp_path, lambda name, data: data.replace(b'"target"', b'"aim"'))

    contents = container.read_contents(path)

    assert contents.tensors.keys() == tiny_net().state_dict().keys()
    assert contents.facts == ArchitectureFacts()
    assert contents.remarks == ("its graph is written in a way this version does not read: it states no facts",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b'"as_int": 16', b'"as_int": 99', "truncated or incomplete"),
        (b'"dtype": 7', b'"dtype": 77', r"of a type this version does not read \(number 77\)"),
        (b'"layout": 7', b'"layout": 1', "is no plain tensor"),
        (b'"path_name": "weight_0"', b'"path_name": "../../x"', "is missing inside it"),
    ],
)
def test_exported_weight_that_claims_what_is_not_there_is_refused(
    old: bytes, new: bytes, message: str, exported: Path, tmp_path: Path
) -> None:
    def change(name: str, data: bytes) -> bytes:
        return data.replace(old, new) if name.endswith("weights_config.json") else data

    path = rewritten(exported, tmp_path, change)

    with pytest.raises(CheckpointError, match=message):
        container.read_contents(path)


def test_exported_layout_before_torch_2_8_is_read(exported: Path, tmp_path: Path) -> None:
    """A JSON program beside two files of `torch.save`, at the top of the archive."""
    net = tiny_net()
    with zipfile.ZipFile(exported) as archive:
        program = next(archive.read(name) for name in archive.namelist() if name.endswith("models/model.json"))
    members = {
        "serialized_exported_program.json": program,
        "serialized_state_dict.pt": bytes_of(save_zip, dict(net.state_dict()), tmp_path),
        "version": b"8.1",
    }

    contents = container.read_contents(write(tmp_path / "old.pt2", zip_bytes(members)))

    assert all(torch.equal(contents.tensors[name], tensor) for name, tensor in net.state_dict().items())
    assert contents.facts == ArchitectureFacts(**PLAIN, source=Source("file", "torch.export graph"))


@pytest.mark.slow
def test_bomb_inside_an_exported_archive_is_refused(tmp_path: Path) -> None:
    inner = zip_bytes({"a/data.pkl": bytes(300 << 20)}, pack=zipfile.ZIP_DEFLATED)
    program = b'{"graph_module": {"graph": {}}}'
    members = {"serialized_exported_program.json": program, "serialized_state_dict.pt": inner}

    with pytest.raises(CheckpointError, match="unpacks to far more than its size"):
        container.read_contents(write(tmp_path / "file", zip_bytes(members)))
