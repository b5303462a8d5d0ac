"""The corpora of real layouts and hostile files, where they are at hand: what the readers make of each file."""

import json
import pickle
import re
from pathlib import Path

import pytest
import torch

from deploy_kit.base.errors import CheckpointError, DeployKitError
from deploy_kit.checkpoint.facts import ArchitectureFacts
from deploy_kit.checkpoint.formats import container

CORPUS = Path(__file__).parents[3] / "shared" / "checkpoints"
GOOD, BAD = (sorted((CORPUS / kind).glob("*/meta.json")) for kind in ("good", "bad"))
pytestmark = pytest.mark.skipif(not GOOD, reason="the corpora of checkpoints are not at hand")

_PREFIXES, _OLD = re.compile(r"(module|_orig_mod)\."), re.compile(r"\b(norm|conv)\.(\d+)\.")
KINDS = {
    "keras_applications_keras_zip": "Keras 3 (.keras)",
    "keras_applications_legacy_h5": "Keras 2 HDF5",
    "tfkeras_denseunit_mnist": "Keras 3 HDF5",
    "paddleclas_pdparams": "Paddle .pdparams",
    "torchscript_traced": "TorchScript",
    "tv_bf16_safetensors_prefixed": "safetensors",
    "tv_legacy_dotted_keys": "torch legacy",
    "chexnet_arnoweng_legacy_dataparallel": "torch legacy",
}
# Those that torch's restricted unpickler refuses (torch 2.13): whole modules, NumPy scalars, a Namespace beside the
# weights, a plain pickle, and files of other containers.
REFUSED_BY_TORCH = frozenset({
    "bamos_full_pickle_logsoftmax", "kuangliu_full_pickle_unimportable", "xrv_full_pickle_1ch", "hysts_basic",
    "hysts_bottleneck", "timm_trainer_ema_namespace", "paddleclas_pdparams", "torchscript_traced",
    "keras_applications_keras_zip", "keras_applications_legacy_h5", "tfkeras_denseunit_mnist",
})  # fmt: skip
# Those whose bytes hold weights, and whose weights are no DenseNet's or not a whole one: the reader gives them.
READABLE = frozenset({
    "classifier_bias_mismatch", "missing_dense_layer", "missing_last_dense_layer", "missing_one_tensor", "nan_weight",
    "rdnet_state_dict", "resnet_state_dict", "wrong_shape_classifier", "xdensenet_hidden_masks",
})  # fmt: skip


def name(meta: Path) -> str:
    return meta.parent.name


def file_of(meta: Path) -> Path:
    return meta.parent / json.loads(meta.read_text())["checkpoint"]


@pytest.mark.parametrize("meta", GOOD, ids=name)
def test_every_real_layout_is_read(meta: Path) -> None:
    contents = container.read_contents(file_of(meta))

    assert contents.kind == KINDS.get(name(meta), "torch zip")
    assert len(contents.tensors) > 20
    path = json.loads(meta.read_text())["wrapper"]["path"]
    if path and not path[0].startswith("<"):
        assert f"'{path[0]}'" in contents.remarks[0]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:'torch.load' received")  # before it refuses
@pytest.mark.parametrize("meta", GOOD, ids=name)
def test_what_torch_refuses_and_what_it_reads_is_read_here(meta: Path) -> None:
    try:
        torch.load(file_of(meta), weights_only=True)
        refused = False
    except (pickle.UnpicklingError, RuntimeError):
        refused = True

    assert refused == (name(meta) in REFUSED_BY_TORCH)


@pytest.mark.parametrize("meta", [meta for meta in GOOD if meta.with_name("keymap.json").is_file()], ids=name)
def test_every_tensor_of_the_key_map_is_there(meta: Path) -> None:
    table = meta.with_name("keymap.json")

    tensors = container.read_contents(file_of(meta)).tensors

    # The map's names come without these prefixes, and with the old `norm.1` joined.
    short = {_OLD.sub(r"\1\2.", _PREFIXES.sub("", found)) for found in tensors}
    assert set(json.loads(table.read_text())["map"]) <= short


@pytest.mark.slow
@pytest.mark.parametrize("case", ["keras_applications_keras_zip", "keras_applications_legacy_h5", "torchscript_traced"])
def test_graphs_of_real_files_state_what_their_authors_say(case: str) -> None:
    meta = CORPUS / "good" / case / "meta.json"
    said = json.loads(meta.read_text())["architecture"]

    facts = container.read_contents(file_of(meta)).facts

    assert facts == ArchitectureFacts(
        stem_stride=2, stem_pool="max", eps=said["bn_eps"], concat="append", transition_relu=True,
        transition_pool="avg", final_relu=True, activation="relu", outer_activation="relu", head_pool="avg",
        head_activation="none", dense_order="norm_first", transition_order="norm_first", final_order="norm_first",
        source=facts.source,
    )  # fmt: skip
    assert said["concat_order"] == "x,new"
    assert said["stem"]["pool"] == "max 3x3 s2 p1"


@pytest.mark.parametrize("meta", BAD, ids=name)
def test_hostile_file_is_refused_in_the_words_asked_for_and_nothing_is_run(meta: Path) -> None:
    asked = json.loads(meta.read_text())
    marker = Path(asked.get("marker", "/nonexistent/marker"))

    if name(meta) in READABLE:
        assert container.read_contents(file_of(meta)).tensors
        return
    with pytest.raises(CheckpointError) as caught:
        container.read_contents(file_of(meta))

    assert [words for words in asked["expected"]["message_should_mention"] if words not in str(caught.value)] == []
    assert caught.value.exit_code == 2
    assert not marker.exists()


def test_both_student_and_teacher_can_be_asked_for() -> None:
    path = CORPUS / "bad" / "two_models_student_teacher" / "kd.pth"

    assert container.read_contents(path, state_key="student").remarks == ("weights taken from 'student', as asked",)
    assert container.read_contents(path, state_key="teacher").remarks == ("weights taken from 'teacher', as asked",)
    with pytest.raises(DeployKitError, match="no state dict is called 'pupil'"):
        container.read_contents(path, state_key="pupil")
