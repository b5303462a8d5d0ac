"""Tests of `structure`: the architecture found in named tensors, and each broken file refused by name."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_densenet import TINY_SPEC, tiny_model
from torch import Tensor
from torch.nn.utils import parametrize

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import structure
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, StemConv

TRAINED = Path(__file__).parents[4] / "shared/checkpoints/trained/densenet121_fmnist64.pth.tar"
STATED = {"stem_stride": 1, "stem_pool": "max", "eps": 1e-5}
PLAIN_SPEC = dataclasses.replace(
    TINY_SPEC,
    blocks=(DenseBlock(layers=2, growth=4, bottleneck=None), DenseBlock(layers=3, growth=6, bottleneck=None)),
    stem=(StemConv(channels=8, kernel=(3, 3), stride=(1, 1), norm=False, relu=False),),
    stem_pool="none",
)
IMAGENET_STEM = dataclasses.replace(TINY_SPEC, stem=(StemConv(channels=8, kernel=(7, 7), stride=(2, 2)),))
ALL = sorted(name for name in tiny_model().state_dict() if not name.endswith("num_batches_tracked"))


def weights(spec: DenseNetSpec = TINY_SPEC) -> dict[str, Tensor]:
    return dict(tiny_model(spec).state_dict())


def parse(tensors: dict[str, Tensor], facts: dict[str, Any] | None = None) -> structure.ParsedStructure:
    contents = Contents(
        kind="torch zip", tensors=tensors, facts=ArchitectureFacts(**(STATED if facts is None else facts))
    )
    return structure.parse_structure(contents, "file")


def without(*parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights().items() if not any(part in name for part in parts)}


def sources_of(spec: DenseNetSpec) -> dict[str, str]:
    return dict(spec.sources)


@pytest.mark.parametrize("spec", [TINY_SPEC, PLAIN_SPEC, IMAGENET_STEM], ids=["bottleneck", "plain", "7x7 stem"])
def test_architecture_is_found_in_the_tensors(spec: DenseNetSpec) -> None:
    facts = {"stem_stride": spec.stem[0].stride, "stem_pool": spec.stem_pool, "eps": spec.eps}

    found = parse(weights(spec), facts).spec

    assert dataclasses.replace(found, sources=()) == spec


def test_tensors_load_strictly_and_give_the_logits_of_the_model_they_came_from() -> None:
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))

    parsed = parse(weights())
    model = DenseNet(parsed.spec).eval()
    model.load_state_dict(parsed.tensors, strict=True)

    assert torch.equal(model(x), tiny_model()(x))


def test_no_bottleneck_is_seen_by_the_missing_second_convolution() -> None:
    spec = parse(weights(PLAIN_SPEC)).spec

    assert [block.bottleneck for block in spec.blocks] == [None, None]
    assert [block.growth for block in spec.blocks] == [4, 6]


def test_facts_stated_in_the_file_win_and_their_source_is_kept() -> None:
    spec = parse(weights(), {"stem_stride": 2, "stem_pool": "none", "eps": 1e-3}).spec

    assert (spec.stem[0].stride, spec.stem_pool, spec.eps) == ((2, 2), "none", 1e-3)
    assert {sources_of(spec)[name] for name in ("stem_stride", "stem_pool", "eps")} == {"stated in the file"}


@pytest.mark.parametrize(("stem", "stride", "pool"), [(PLAIN_SPEC, 1, "none"), (IMAGENET_STEM, 2, "max")])
def test_facts_not_stated_follow_the_papers_stems_and_the_familys_source(
    stem: DenseNetSpec, stride: int, pool: str
) -> None:
    spec = parse(weights(stem), {}).spec

    assert (spec.stem[0].stride, spec.stem_pool, spec.eps) == ((stride, stride), pool, 1e-5)
    assert all(source.startswith(("convention: ", "family 'torchvision'")) for source in sources_of(spec).values())


def test_kinds_of_sources_say_what_a_probe_may_change() -> None:
    parsed = parse(weights(PLAIN_SPEC), {"stem_stride": 1, "eps": 1e-5})

    assert {name: source.kind for name, source in parsed.sources.items()} == {
        "stem_stride": "file", "stem_pool": "convention", "eps": "file", "activation": "family",
        "outer_activation": "family", "concat": "family", "transition_relu": "family", "transition_pool": "family",
        "transition_order": "family", "final_relu": "family", "dense_order": "family", "final_order": "family",
        "head_pool": "family", "feature_norm": "family",
    }  # fmt: skip
    assert set(parsed.sources) - set(parsed.guessed) == {"stem_stride", "eps"}
    assert parsed.spec.sources == tuple((name, source.text) for name, source in parsed.sources.items())


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "backbone."])
def test_common_prefix_makes_no_difference(prefix: str) -> None:
    parsed = parse({prefix + name: tensor for name, tensor in weights().items()})

    assert parsed.tensors.keys() == weights().keys()


def test_old_dotted_names_are_read_as_new_ones() -> None:
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): item for name, item in weights().items()}

    parsed = parse(old)

    assert parsed.tensors.keys() == weights().keys()


def test_old_files_without_batch_counters_are_read() -> None:
    parsed = parse(without("num_batches_tracked"))

    assert parsed.tensors.keys() == weights().keys()


def test_counters_of_training_tools_are_left_out() -> None:
    counters = {
        "total_ops": torch.zeros(1),
        "features.conv0.total_params": torch.zeros(1),
        "n_averaged": torch.ones(()),
    }

    parsed = parse(weights() | counters)

    assert parsed.tensors.keys() == weights().keys()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened_exactly_and_remarked(dtype: torch.dtype) -> None:
    half = {name: item.to(dtype) if item.is_floating_point() else item for name, item in weights().items()}
    n_half = sum(item.dtype == dtype for item in half.values())

    parsed = parse(half)

    assert all(torch.equal(parsed.tensors[name].to(dtype), item) for name, item in half.items() if item.dtype == dtype)
    assert {item.dtype for item in parsed.tensors.values() if item.is_floating_point()} == {torch.float32}
    assert parsed.remarks == (f"{n_half} tensors widened from half precision to float32",)


def test_plain_file_leaves_no_remark() -> None:
    assert parse(weights()).remarks == ()


@pytest.mark.parametrize("name", [name for name in ALL if name != "classifier.bias"])
def test_any_missing_tensor_is_refused(name: str) -> None:
    tensors = weights()
    del tensors[name]

    with pytest.raises(CheckpointError, match=r"^file: "):
        parse(tensors)


def test_half_a_bn_is_named_by_what_it_lacks() -> None:
    tensors = weights()
    del tensors["features.denseblock2.denselayer1.norm2.running_var"]

    with pytest.raises(CheckpointError, match=r"'features\.denseblock2\.denselayer1\.norm2\.running_var' is missing"):
        parse(tensors)


@pytest.mark.parametrize("module", ["features.norm5", "features.transition1.norm"])
def test_whole_bn_that_a_known_family_has_is_missed(module: str) -> None:
    with pytest.raises(CheckpointError, match=r"^file: no BN .*, and torchvision has one there$"):
        parse(without(module + "."))


def test_whole_bn_that_is_missing_under_unknown_names_is_remarked() -> None:
    tensors = {name.replace("denselayer", "unit"): tensor for name, tensor in without("features.norm5").items()}

    assert "no BN behind the last block: taken as it is" in parse(tensors).remarks


def test_bias_without_its_weight_is_named() -> None:
    tensors = weights()
    del tensors["classifier.weight"]

    with pytest.raises(CheckpointError, match=r"^file: 'classifier\.weight' is missing, its bias is there$"):
        parse(tensors)


def test_classifier_without_a_bias_is_remarked() -> None:
    tensors = weights()
    del tensors["classifier.bias"]

    assert "'classifier' has no bias" in parse(tensors).remarks


def test_tensor_left_over_is_named() -> None:
    tensors = weights() | {"features.gate": torch.zeros(4)}

    with pytest.raises(CheckpointError, match=r"has no place for: features\.gate$") as caught:
        parse(tensors)

    assert caught.value.hint.endswith("leave them out: --ignore features.gate")


def test_tensor_named_to_be_left_out_is() -> None:
    said = StatedFacts(facts=ArchitectureFacts(**STATED), ignore=("features.gate",))
    contents = Contents(kind="torch zip", tensors=weights() | {"features.gate": torch.zeros(4)})

    assert "'features.gate' left out, as asked" in structure.parse_structure(contents, "file", said).remarks


def test_name_to_be_left_out_that_does_not_exist_is_refused() -> None:
    contents = Contents(kind="torch zip", tensors=weights())

    with pytest.raises(CheckpointError, match=r"nothing is called 'features\.gat', so it cannot be left out"):
        structure.parse_structure(contents, "file", StatedFacts(ignore=("features.gat",)))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("features.denseblock1.denselayer1.conv1.mask", "X-DenseNet / masked convolutions"),
        ("features.denseblock1.denselayer1.selayer.bn", "squeeze-and-excitation"),
        ("features.conv0.weight_fake_quant.scale", "quantization-aware training"),
        ("features.denseblock1.denselayer1.conv1.index", "CondenseNet's learned groups"),
        ("features.denseblock1.denselayer1.relu.weight", "learned activations"),
    ],
)
def test_reason_is_told_where_the_tensors_left_over_give_it_away(name: str, why: str) -> None:
    with pytest.raises(CheckpointError, match=f"has no place for: .*{why}"):
        parse(weights() | {name: torch.zeros(4)})


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("rank", [0, 1, 2, 3, 4, 5])
def test_any_tensor_of_another_shape_is_refused(name: str, rank: int) -> None:
    shape = (3,) * rank
    if weights()[name].shape == shape:
        shape = (5,) * rank

    with pytest.raises(CheckpointError, match=r"^file: "):
        parse(weights() | {name: torch.zeros(shape)})


def test_bias_of_another_length_is_named_with_what_was_expected() -> None:
    with pytest.raises(CheckpointError, match=r"classifier\.bias: expected 4 values .* found shape \[5\]"):
        parse(weights() | {"classifier.bias": torch.zeros(5)})


def test_decoder_is_named_and_can_be_left_out() -> None:
    tensors = weights() | {"up.0.weight": torch.zeros(16, 8, 2, 2), "up.0.bias": torch.zeros(8)}

    with pytest.raises(
        CheckpointError, match=r"a decoder: of segmentation networks.*'up\.0' is a transposed"
    ) as caught:
        parse(tensors)
    contents = Contents(kind="torch zip", tensors=tensors, facts=ArchitectureFacts(**STATED))
    structure.parse_structure(contents, "file", StatedFacts(ignore=(caught.value.hint.rpartition(" ")[2],)))


def test_classifier_that_reads_another_width_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"'classifier\.weight' reads 17 channels, the last map has 16"):
        parse(weights() | {"classifier.weight": torch.zeros(4, 17)})


def test_network_without_a_classifier_asks_for_it() -> None:
    with pytest.raises(CheckpointError, match="no classifier behind the 16 channels of the last map") as caught:
        parse(without("classifier"))

    assert "--head none" in caught.value.hint


def test_negative_variance_is_named() -> None:
    name = "features.norm5.running_var"

    with pytest.raises(CheckpointError, match=rf"^file: {re.escape(name)} holds a negative variance, -1$"):
        parse(weights() | {name: -torch.ones(16)})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_no_number_is_named(value: float) -> None:
    tensors = weights()
    tensors["features.transition1.conv.weight"] = tensors["features.transition1.conv.weight"].clone()
    tensors["features.transition1.conv.weight"][0, 0] = value

    with pytest.raises(CheckpointError, match=r"^file: features\.transition1\.conv\.weight holds NaN or infinity$"):
        parse(tensors)


def test_missing_first_layer_is_noticed_by_the_width_before_it() -> None:
    message = r"features\.denseblock2.*: expected 8 input channels behind 'features\.transition1\.conv', found 12"

    with pytest.raises(CheckpointError, match=message):
        parse(without("denseblock2.denselayer1"))


def test_missing_layer_in_the_middle_is_named_by_its_siblings() -> None:
    spec = dataclasses.replace(TINY_SPEC, blocks=(DenseBlock(layers=3, growth=4, bottleneck=16),) * 2, transitions=(8,))
    tensors = {name: tensor for name, tensor in weights(spec).items() if "denseblock1.denselayer2" not in name}

    message = r"features\.denseblock1: expected 12 input channels, found 16 .*denselayer2 missing\?"
    with pytest.raises(CheckpointError, match=message):
        parse(tensors)


def test_missing_layer_at_the_end_is_noticed_by_the_last_bn() -> None:
    with pytest.raises(CheckpointError, match="norm5 has 16 channels, blocks produce 12"):
        parse(without("denseblock2.denselayer2"))


def test_missing_last_layer_of_an_inner_block_is_noticed_by_the_transition() -> None:
    message = r"'features\.denseblock1.*' ends with 12 channels, and no transition reads them \(transitions read: 16\)"

    with pytest.raises(CheckpointError, match=message):
        parse(without("denseblock1.denselayer2"))


def test_missing_dense_block_is_noticed() -> None:
    with pytest.raises(CheckpointError, match=r"^file: "):
        parse(without("denseblock1"))


def test_network_of_another_kind_is_refused_with_a_reason() -> None:
    tensors = {f"layer{i}.0.conv1.weight": torch.zeros(4, 4, 3, 3) for i in range(1, 5)}

    with pytest.raises(
        CheckpointError, match=r"not a DenseNet: no concatenation growth \(blocks under ResNet.s names\)"
    ) as caught:
        parse(tensors)

    assert "give a DenseNet" in caught.value.hint


@pytest.mark.parametrize(
    "layer", ["features.conv0", "features.transition1.conv", "features.denseblock1.denselayer1.conv2"]
)
def test_convolution_over_another_number_of_axes_is_refused_by_name(layer: str) -> None:
    tensors = weights()
    tensors[f"{layer}.weight"] = tensors[f"{layer}.weight"].flatten(2)

    with pytest.raises(CheckpointError, match=rf"'{layer}' .*(1 axes, expected 2|axes)"):
        parse(tensors)


def test_parametrization_that_is_not_known_is_named_and_its_cure_holds() -> None:
    class Twice(torch.nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    model = tiny_model()
    layer = next(name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    parametrize.register_parametrization(model.get_submodule(layer), "weight", Twice())

    with pytest.raises(CheckpointError, match=rf"'{layer}.weight' is computed by a parametrization") as caught:
        parse(dict(model.state_dict()))

    assert f"remove_parametrizations(model.{layer}, 'weight')" in caught.value.hint
    parametrize.remove_parametrizations(model.get_submodule(layer), "weight")
    assert parse(dict(model.state_dict())).spec.classes == TINY_SPEC.classes


def test_complex_weights_are_refused() -> None:
    """Widening them to float32 would drop their imaginary part without a word."""
    tensors = weights()
    tensors["classifier.weight"] = tensors["classifier.weight"].to(torch.complex64)

    with pytest.raises(CheckpointError, match=r"classifier\.weight"):
        parse(tensors)


@pytest.mark.parametrize("layout", ["sparse", "meta"])
def test_weights_without_dense_storage_are_refused_by_name(layout: str) -> None:
    tensors = weights()
    weight = tensors["classifier.weight"]
    tensors["classifier.weight"] = weight.to_sparse() if layout == "sparse" else weight.to("meta")

    with pytest.raises(CheckpointError, match=r"classifier\.weight"):
        parse(tensors)


@pytest.mark.skipif(not TRAINED.is_file(), reason=f"the trained checkpoint {TRAINED.name} is not beside this checkout")
def test_trained_checkpoint_is_densenet_121_with_growth_32() -> None:
    read = checkpoint.read_checkpoint(TRAINED)

    assert read.spec.title == "DenseNet-BC-121 (k = 32)"
    assert [block.layers for block in read.spec.blocks] == [6, 12, 24, 16]
    assert (read.spec.in_channels, read.spec.classes) == (3, 10)
    assert "weights taken from 'state_dict'" in read.remarks
