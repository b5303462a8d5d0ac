"""Tests of facts that nothing in a file decides: asked for, named by a flag, tried by a probe, refused if strict."""

import dataclasses
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import cifar, linear, named, random_names, small, trained
from torch import Tensor

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import body, structure
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.graph.adoption import Stated, adopt
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec

FAULTS = Path(__file__).parents[2].parent / "shared" / "faults" / "checkpoints"


def parse(tensors: dict[str, Tensor], **facts: Any) -> structure.ParsedStructure:
    stated = StatedFacts(facts=ArchitectureFacts(**facts))
    return structure.parse_structure(Contents(kind="torch zip", tensors=tensors), "net.pth", stated)


def given(name: str) -> Path:
    if not FAULTS.is_dir():
        pytest.skip("needs ../shared/faults")
    return FAULTS / name


def off(name: str, **facts: Any) -> float:
    """Return how far the rebuilt network is from the answers that lie beside a file."""
    network = checkpoint.read_checkpoint(given(f"{name}.pth"), StatedFacts(facts=ArchitectureFacts(**facts)))
    arrays = np.load(FAULTS / f"{name}.io.npz")
    found = network.model(torch.from_numpy(arrays["input"])).numpy()
    return float(np.abs(found - arrays["logits"]).max() / np.abs(arrays["logits"]).max())


def test_head_of_twice_the_width_is_asked_about_and_each_answer_acts() -> None:
    with pytest.raises(CheckpointError, match="the file cannot say: head pool") as caught:
        checkpoint.read_checkpoint(given("c06_timm_catavgmax.pth"))

    assert "--head-pool max_avg or avg_max" in caught.value.hint
    assert off("c06_timm_catavgmax", head_pool="avg_max") <= 1e-5
    assert off("c06_timm_catavgmax", head_pool="max_avg") > 0.1


def test_probe_finds_the_order_of_both_poolings() -> None:
    path = given("c06_timm_catavgmax.pth")

    network = checkpoint.read_checkpoint(path, StatedFacts(probe=str(FAULTS / "c06_timm_catavgmax.io.npz")))

    assert network.spec.head_pool == "avg_max"


def test_layer_named_as_a_metric_is_asked_about() -> None:
    message = "nothing says whether 'metric.0' stands before 'fc' or takes no part in its answer"
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.read_checkpoint(given("c41_metric_named_layer.pth"))

    assert "--ignore metric.0" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("c18b_xrv_op_threshs_nan", "no place for: op_threshs", "leave them out: --ignore op_threshs"),
        ("c19b_flat_ema", "holds two networks of one shape, 'model' and 'model_ema'", "--ignore model_ema"),
        ("c20_torch_pruning", "has bottleneck width 21 where others have 17", "export it to ONNX"),
    ],
)
def test_message_names_what_is_there_and_the_way_on(name: str, message: str, hint: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        checkpoint.read_checkpoint(given(f"{name}.pth"))

    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("name", "ignored"), [("c18b_xrv_op_threshs_nan", "op_threshs"), ("c19b_flat_ema", "model_ema")]
)
def test_cure_that_is_named_reads_the_file(name: str, ignored: str) -> None:
    network = checkpoint.read_checkpoint(given(f"{name}.pth"), StatedFacts(ignore=(ignored,)))

    assert network.spec.blocks


def torchvision(spec: DenseNetSpec) -> dict[str, Tensor]:
    return dict(trained(spec).state_dict())


def test_stem_that_contradicts_its_family_in_the_pool_is_asked_for_its_stride() -> None:
    first = small().stem[0]
    spec = small(stem=(dataclasses.replace(first, kernel=(7, 7), stride=(1, 1)),), stem_pool="none")
    tensors = torchvision(spec)

    with pytest.raises(CheckpointError, match="the file cannot say: stem stride"):
        parse(tensors, stem_pool="none")

    assert parse(tensors, stem_pool="none", stem_stride=1).spec.stem[0].stride == (1, 1)


def test_transitions_that_are_not_the_papers_are_asked_about() -> None:
    spec = cifar(transition_kernel=3, transition_norm=False, transition_relu=False, transition_pool="max")
    tensors = named(trained(spec, statistics=False), random_names(3, n_stem=1))

    with pytest.raises(CheckpointError, match="cannot say: transition relu, transition pool") as caught:
        parse(tensors)

    assert "--transition-pool avg, max or none" in caught.value.hint
    assert parse(tensors, transition_pool="max", transition_relu=False).spec.transition_pool == "max"


@pytest.mark.parametrize("seed", [0, 1])
def test_relu_before_a_transitions_bn_shows_in_its_means(seed: int) -> None:
    spec = cifar(transition_order="activation_first")

    parsed = parse(named(trained(spec, seed=seed), random_names(seed, n_stem=1)))

    assert (parsed.spec.transition_relu, parsed.spec.transition_order) == (True, "activation_first")
    assert parsed.sources["transition_order"].kind == "statistics"


def test_relu_before_a_transitions_bn_shows_where_blocks_have_one_layer() -> None:
    """Few channels repeat from BN to BN then: those of dense layers have negative means, the transitions' have none."""
    blocks = tuple(DenseBlock(layers=1, growth=20, bottleneck=40) for _ in range(3))
    stem = (dataclasses.replace(cifar().stem[0], channels=40),)
    spec = cifar(stem=stem, blocks=blocks, transitions=(20, 10), transition_order="activation_first")

    parsed = parse(named(trained(spec), random_names(3, n_stem=1)))

    assert parsed.spec.transition_order == "activation_first"
    assert parsed.sources["transition_order"].kind == "statistics"


@pytest.mark.parametrize(
    ("fact", "spec"),
    [
        ("transition_pool", cifar(transition_pool="none")), ("transition_pool", cifar()),
        ("stem_pool", small(stem_pool="avg")), ("stem_pool", small(stem_pool="none")),
    ],
)  # fmt: skip
def test_pool_that_keeps_means_is_a_default_that_flags_may_change_without_a_remark(
    fact: str, spec: DenseNetSpec
) -> None:
    """An average of pixels has the mean of all of them, as a map that no pool halves."""
    tensors, value = named(trained(spec, side=64), random_names(7, n_stem=1)), getattr(spec, fact)

    parsed = parse(tensors, stem_stride=spec.stem[0].stride)
    stated = parse(tensors, stem_stride=spec.stem[0].stride, **{fact: value})

    assert parsed.sources[fact].kind == "default"
    assert any(f"{fact} = " in remark for remark in parsed.remarks)
    assert getattr(stated.spec, fact) == value
    assert not any(remark.startswith(fact) for remark in stated.remarks)


def test_every_default_that_changes_numbers_is_listed_and_stops_strict() -> None:
    tensors = named(trained(cifar(), statistics=False), random_names(7, n_stem=1))
    parsed = parse(tensors)
    listed = dict(parsed.spec.sources)

    with pytest.raises(CheckpointError, match="nothing in the file decides") as caught:
        structure.parse_structure(Contents(kind="torch zip", tensors=tensors), "net.pth", StatedFacts(strict=True))

    for name in ("head_pool", "feature_norm", "dense_order", "transition_order", "final_order", "concat"):
        assert listed[name].startswith("default")
        assert name in str(caught.value)
        assert "--" + name.replace("_", "-") in caught.value.hint


@pytest.mark.slow
@pytest.mark.parametrize(
    "facts",
    [{"feature_norm": "l2"}, {"head_pool": "avg_max_mean"}, {"final_order": "activation_first"},
     {"dense_order": "activation_first"}, {"transition_pool": "none"}],
    ids=lambda facts: next(iter(facts)),
)  # fmt: skip
def test_probe_finds_what_is_unlike_the_paper(facts: dict[str, Any], tmp_path: Path) -> None:
    net = trained(cifar(**facts), statistics=False)
    torch.save(named(net, random_names(7, n_stem=1)), tmp_path / "net.pth")
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    np.savez(tmp_path / "io.npz", input=x.numpy(), logits=net(x).numpy())

    network = checkpoint.read_checkpoint(tmp_path / "net.pth", StatedFacts(probe=str(tmp_path / "io.npz")))

    assert {name: getattr(network.spec, name) for name in facts} == facts


def test_decoder_whose_convolutions_all_fit_each_other_is_refused_soon() -> None:
    """As of a U-Net on a DenseNet: thirty convolutions of one width, which can be put in a row in endless ways."""
    tensors = {f"encoder.{name}": one for name, one in torchvision(small()).items() if "classifier" not in name}
    width = small().stem_channels
    for at in range(30):
        tensors[f"decoder.blocks.{at}.conv.weight"] = torch.zeros(width, width, 3, 3)
    start = time.perf_counter()

    with pytest.raises(CheckpointError, match="a decoder: of segmentation networks, FC-DenseNet and") as refused:
        parse(tensors)

    assert time.perf_counter() - start < 5
    assert refused.value.hint.endswith(f"give its ONNX file: {body.EXPORT}")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # torch's own
def test_line_that_exports_a_whole_network_gives_a_file_that_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 5, 1))

    eval(body.EXPORT, {"torch": torch, "model": model})

    assert adopt(tmp_path / "model.onnx", Stated()).model.graph.outputs


def test_decoder_of_blocks_with_norms_is_refused_soon() -> None:
    """As segmentation_models_pytorch has it: its convolutions and BNs also read as dense layers and transitions."""
    tensors = {f"encoder.{name}": one for name, one in torchvision(small()).items() if "classifier" not in name}
    for at, (read, out) in enumerate(((64, 32), (48, 24), (34, 16), (26, 8), (8, 8))):
        for part, width in ((1, read), (2, out)):
            home = f"decoder.blocks.{at}.conv{part}"
            tensors[f"{home}.0.weight"] = torch.zeros(out, width, 3, 3)
            tensors |= {
                f"{home}.1.{name}": torch.ones(out) for name in ("weight", "bias", "running_mean", "running_var")
            }
    start = time.perf_counter()

    with pytest.raises(CheckpointError, match="a decoder: of segmentation networks, FC-DenseNet and"):
        parse(tensors)

    assert time.perf_counter() - start < 5


def test_norms_without_running_statistics_are_named() -> None:
    net = DenseNet(cifar(heads=linear(5)))
    tensors = {name: one for name, one in net.state_dict().items() if "running" not in name and "num_" not in name}

    with pytest.raises(CheckpointError, match="have no running statistics: group, layer and instance norms"):
        parse(tensors)


def test_head_without_a_bias_may_be_a_cosine_and_is_remarked() -> None:
    """Torchvision's head has a bias: a file under its names without one is another's, and cosine heads have none."""
    tensors = torchvision(small(heads=linear(5, bias=False)))

    assert any("feature_norm = none" in remark for remark in parse(tensors).remarks)
    stated = StatedFacts(strict=True)
    with pytest.raises(CheckpointError, match=r"nothing in the file decides .*feature_norm"):
        structure.parse_structure(Contents(kind="torch zip", tensors=tensors), "net.pth", stated)


def leaky(kind: str, slope: float) -> dict[str, float]:
    return {"slope": slope} if kind == "leaky_relu" else {}


@pytest.mark.parametrize(("kind", "slope"), [("leaky_relu", 0.1), ("leaky_relu", 0.2), ("elu", 0.01), ("silu", 0.01)])
def test_activation_that_is_no_relu_shows_in_the_means_and_is_asked_about(kind: str, slope: float) -> None:
    tensors = torchvision(small(activation=kind, outer_activation=kind, slope=slope))

    with pytest.raises(CheckpointError, match=r"cannot say: activation .*of what lies below zero passes") as caught:
        parse(tensors)

    assert "--activation relu, leaky_relu, elu, silu or gelu" in caught.value.hint
    assert parse(tensors, activation=kind, **leaky(kind, slope)).spec.activation == kind


def test_slope_that_the_means_contradict_is_asked_about_with_the_one_they_show() -> None:
    tensors = torchvision(small(activation="leaky_relu", outer_activation="leaky_relu", slope=0.2))

    with pytest.raises(CheckpointError, match="cannot say: slope") as caught:
        parse(tensors, activation="leaky_relu")

    assert "--slope 0.2" in caught.value.hint
