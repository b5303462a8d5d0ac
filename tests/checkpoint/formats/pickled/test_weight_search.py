"""Tests of weight search: what in a pickle is the weights, and what is beside them."""

import argparse
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_files import PICKLE_SAVERS, TORCH_SAVERS, TinyDenseNet, save_zip, tiny_net, weights, write
from torch import Tensor, nn

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.formats import container
from deploy_kit.records.artifacts import Preprocess


def read(data: Any, folder: Path, **options: Any) -> Contents:
    save_zip(data, folder / "file")
    return container.read_contents(folder / "file", **options)


def shifted(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor + 1 for name, tensor in tensors.items()}


def same(contents: Contents, tensors: dict[str, Tensor]) -> bool:
    return contents.tensors.keys() == tensors.keys() and all(
        torch.equal(contents.tensors[name], tensor) for name, tensor in tensors.items()
    )


@pytest.mark.parametrize("kind", PICKLE_SAVERS)
@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net", "network", "weights", "G"])
def test_nested_weights_are_found_and_the_key_is_remarked(kind: str, key: str, tmp_path: Path) -> None:
    saved = weights()
    PICKLE_SAVERS[kind]({"epoch": 3, key: saved, "optimizer": {"state": {}}}, tmp_path / "file")

    contents = container.read_contents(tmp_path / "file")

    assert same(contents, saved)
    assert contents.remarks == (f"weights taken from '{key}'",)


def test_bare_state_dict_leaves_no_remark(tmp_path: Path) -> None:
    assert read(weights(), tmp_path).remarks == ()


def test_weights_six_levels_down_are_found(tmp_path: Path) -> None:
    contents = read({"a": {"b": [{"x": 1}, {"c": {"d": {"e": weights()}}}]}}, tmp_path)

    assert same(contents, weights())
    assert contents.remarks == ("weights taken from 'a.b.1.c.d.e'",)


def test_short_pickle_that_refers_to_one_list_billions_of_times_is_searched_once(tmp_path: Path) -> None:
    lists: Any = weights()
    for _ in range(4):
        lists = [lists] * 2000

    assert same(read(lists, tmp_path), weights())


def test_module_in_which_modules_double_is_refused(tmp_path: Path) -> None:
    module = nn.Module()
    for _ in range(30):
        outer = nn.Module()
        outer.a = outer.b = module
        module = outer

    with pytest.raises(CheckpointError, match=r"more than 64 levels or 50,000 parts") as caught:
        read(module, tmp_path)

    assert "torch.save(model.state_dict()" in caught.value.hint


def test_weights_seven_levels_down_are_not_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state dict found: expected 4 convolutions or more, found 'a'"):
        read({"a": {"b": {"c": {"d": {"e": {"f": {"g": weights()}}}}}}}, tmp_path)


@pytest.mark.parametrize("key", ["state_dict_ema", "model_ema", "ema", "ema_state_dict", "ema_model.module"])
def test_ema_weights_are_taken_and_the_way_to_the_raw_ones_is_said(key: str, tmp_path: Path) -> None:
    raw = weights()
    data: dict[str, Any] = {"state_dict": raw}
    home, _, last = key.rpartition(".")
    data |= {home: {last: shifted(raw)}} if home else {key: shifted(raw)}

    contents = read(data, tmp_path)

    assert same(contents, shifted(raw))
    assert contents.remarks == (f"EMA weights taken from '{key}' (the raw ones: --state-key state_dict)",)


def test_state_key_chooses_the_raw_weights(tmp_path: Path) -> None:
    raw = weights()

    contents = read({"state_dict": raw, "state_dict_ema": shifted(raw)}, tmp_path, state_key="state_dict")

    assert same(contents, raw)
    assert contents.remarks == ("weights taken from 'state_dict', as asked",)


@pytest.mark.parametrize("keys", [("student", "teacher"), ("best_state_dict", "state_dict"), ("G", "D")])
def test_two_candidates_are_listed_and_a_choice_is_asked_for(keys: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds several state dicts") as caught:
        read({keys[0]: weights(), keys[1]: shifted(weights())}, tmp_path)

    assert f"'{keys[0]}', '{keys[1]}'" in str(caught.value)
    assert "--state-key" in str(caught.value)
    assert caught.value.hint.startswith("choose one, e.g. --state-key ")


def test_folds_of_a_list_are_candidates(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'folds\.0', 'folds\.1', 'folds\.2'"):
        read({"folds": [weights(), shifted(weights()), shifted(shifted(weights()))]}, tmp_path)


def test_state_key_that_names_nothing_suggests_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no state dict is called 'studnt'") as caught:
        read({"student": weights(), "teacher": shifted(weights())}, tmp_path, state_key="studnt")

    assert caught.value.hint == "did you mean 'student'?"


def test_copies_of_the_same_weights_are_one_candidate(tmp_path: Path) -> None:
    copy = {name: tensor.clone() for name, tensor in weights().items()}

    contents = read({"backup": copy, "state_dict": weights()}, tmp_path)

    assert contents.remarks == ("weights taken from 'state_dict'",)


@pytest.mark.parametrize("key", ["optimizer", "optimizer_states", "optim", "opt"])
def test_moments_of_an_optimizer_are_no_weights(key: str, tmp_path: Path) -> None:
    moments = {f"exp_avg{i}": torch.zeros(4, 4, 3, 3) for i in range(6)}

    contents = read({key: {"state": moments}, "model": weights()}, tmp_path)

    assert contents.remarks == ("weights taken from 'model'",)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4, 4, 3, 3), "a single tensor, not a state dict"),
        ({}, "no state dict found: it holds no tensors"),
        ([], "no state dict found: it holds no tensors"),
        ({"optimizer": {"state": {}}, "epoch": 3}, "optimizer state only"),
        ({"state": {0: {"m": torch.zeros(4, 4, 3, 3)}}, "param_groups": []}, "optimizer state only"),
        ({"fc.weight": torch.zeros(4, 4)}, r"expected 4 convolutions or more, found 'fc\.weight'"),
        ({f"k{i}": 0 for i in range(20)}, r"'k7' and 12 more"),
    ],
    ids=["tensor", "empty", "empty list", "optimizer", "bare optimizer", "no convolution", "many"],
)
def test_file_without_weights_says_what_is_there(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        read(data, tmp_path)

    assert caught.value.hint


def test_state_dict_with_lightning_objects_beside_it_is_read(tmp_path: Path) -> None:
    beside = {
        "hyper_parameters": argparse.Namespace(lr=0.1),
        "best_acc": np.float64(0.5),
        "loss": np.array([0.5, 0.25]),
        "path": Path("runs/1"),
        "rng": torch.get_rng_state(),
    }

    assert same(read({"state_dict": OrderedDict(weights())} | beside, tmp_path), weights())


@pytest.fixture
def unimportable(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """A module class that is gone when its file is read."""
    module = types.ModuleType("gone_project")
    made = type("GoneNet", (TinyDenseNet,), {"__module__": "gone_project"})
    module.GoneNet = made  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "gone_project", module)
    return made


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")  # torch's, of a class made on the spot
@pytest.mark.parametrize("kind", PICKLE_SAVERS)
def test_whole_module_is_read_as_its_state_dict(
    kind: str, unimportable: type[nn.Module], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    net = unimportable().eval()
    PICKLE_SAVERS[kind](net, tmp_path / "file")
    monkeypatch.delitem(sys.modules, "gone_project")

    contents = container.read_contents(tmp_path / "file")

    assert list(contents.tensors) == list(net.state_dict())
    assert same(contents, dict(net.state_dict()))
    assert contents.remarks == ("a whole module ('gone_project.GoneNet'): its weights read, its code not run",)


def test_plain_attributes_of_a_whole_module_are_kept(tmp_path: Path) -> None:
    attributes = read(tiny_net(), tmp_path).attributes

    assert attributes[""]["class"] == "checkpoint_files.TinyDenseNet"
    assert attributes["bn0"]["class"] == "torch.nn.modules.batchnorm.BatchNorm2d"
    assert attributes["bn0"]["eps"] == 1e-3
    assert attributes["stem"]["stride"] == (2, 2)
    assert attributes["dense1.0"]["prepend"] is False


def test_buffers_that_are_not_persistent_are_left_out_as_torch_does(tmp_path: Path) -> None:
    net = tiny_net()
    net.bn0.register_buffer("blur", torch.ones(3), persistent=False)
    net.bn0.register_buffer("extra", torch.ones(3), persistent=True)

    contents = read(net, tmp_path)

    assert contents.tensors.keys() == net.state_dict().keys()
    assert "bn0.extra" in contents.tensors
    assert "bn0.blur" not in contents.tensors


def test_module_in_data_parallel_has_its_prefix(tmp_path: Path) -> None:
    net = nn.DataParallel(tiny_net())

    assert same(read({"model": net, "epoch": 1}, tmp_path), dict(net.state_dict()))


def test_learner_object_that_holds_a_model_is_read(tmp_path: Path) -> None:
    learner = argparse.Namespace(model=tiny_net(), opt_func=torch.optim.SGD, lr=0.1)

    contents = read(learner, tmp_path)

    assert same(contents, weights())
    assert contents.remarks[0] == "weights taken from 'model'"


def test_module_that_holds_itself_is_refused(tmp_path: Path) -> None:
    net = tiny_net()
    net._modules["again"] = net

    with pytest.raises(CheckpointError, match="refused: its module has more than 64 levels"):
        read(net, tmp_path)


def test_names_are_kept_where_python_2_wrote_bytes(tmp_path: Path) -> None:
    arrays = {name.encode(): tensor.numpy() for name, tensor in weights().items()}

    contents = container.read_contents(write(tmp_path / "file", pickle.dumps(arrays, 2)))

    assert same(contents, weights())


@pytest.mark.parametrize(
    "beside",
    [
        {"class_to_idx": {"b": 1, "a": 0}},
        {"classes": ["a", "b"]},
        {"meta": {"CLASSES": ("a", "b")}},
        {"meta": {"dataset_meta": {"classes": ("a", "b")}}},
        {"hyper_parameters": {"idx_to_class": {0: "a", 1: "b"}}},
        {"args": argparse.Namespace(class_names=["a", "b"])},
    ],
    ids=lambda beside: next(iter(beside)),
)
def test_class_names_are_read(beside: dict[str, Any], tmp_path: Path) -> None:
    assert read({"state_dict": weights()} | beside, tmp_path).classes == ("a", "b")


@pytest.mark.parametrize("beside", [{}, {"class_to_idx": {"a": 0, "b": 2}}, {"classes": 2}, {"classes": ["a", 1]}])
def test_class_names_that_are_not_plain_are_not_taken(beside: dict[str, Any], tmp_path: Path) -> None:
    assert read({"state_dict": weights()} | beside, tmp_path).classes is None


def test_preprocessing_is_read_from_a_data_config_of_timm(tmp_path: Path) -> None:
    config = {
        "input_size": (3, 224, 192), "mean": (0.485, 0.456, 0.406), "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic", "crop_pct": 0.875,
    }  # fmt: skip

    contents = read({"state_dict": weights(), "args": argparse.Namespace(data_config=config)}, tmp_path)

    assert contents.preprocess == Preprocess(
        height=224, width=192, color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=219,
        interpolation="bicubic",
    )  # fmt: skip


@pytest.mark.parametrize(
    "change", [{"input_size": 224}, {"mean": (123.7, 116.3, 103.5)}, {"std": None}, {"interpolation": "nearest"}]
)
def test_preprocessing_that_is_not_plain_is_not_taken(change: dict[str, Any], tmp_path: Path) -> None:
    config = {"input_size": (3, 224, 224), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)} | change

    assert read({"state_dict": weights(), "args": config}, tmp_path).preprocess is None


PADDLE = {"running_mean": "_mean", "running_var": "_variance"}


def paddle_arrays() -> dict[str, Any]:
    arrays = {}
    for name, tensor in weights().items():
        owner, _, leaf = name.rpartition(".")
        if leaf != "num_batches_tracked":
            arrays[f"{owner}.{PADDLE.get(leaf, leaf)}"] = (tensor.T if tensor.dim() == 2 else tensor).numpy()
    return arrays


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("form", ["arrays", "pairs", "table"])
def test_paddle_is_brought_into_torchs_convention(form: str, protocol: int, tmp_path: Path) -> None:
    wanted = {name: tensor for name, tensor in weights().items() if not name.endswith("num_batches_tracked")}
    arrays = paddle_arrays()
    data = {
        "arrays": arrays,
        "pairs": {name: (f"linear_{i}.w_0", array) for i, (name, array) in enumerate(arrays.items())},
        "table": arrays | {"StructuredToParameterName@@": {"fc.weight": "linear_0.w_0"}},
    }[form]

    contents = container.read_contents(write(tmp_path / "file", pickle.dumps(data, protocol)))

    assert contents.kind == "Paddle .pdparams"
    assert same(contents, wanted)


def test_plain_arrays_under_torchs_names_stay_as_they_are(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in weights().items()}

    contents = container.read_contents(write(tmp_path / "file", pickle.dumps(arrays)))

    assert contents.kind == "pickle"
    assert same(contents, weights())


@pytest.mark.parametrize("kind", TORCH_SAVERS)
def test_half_precision_keeps_its_type(kind: str, tmp_path: Path) -> None:
    halves = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights().items()}
    TORCH_SAVERS[kind](halves, tmp_path / "file")

    assert container.read_contents(tmp_path / "file").tensors["stem.weight"].dtype == torch.float16
