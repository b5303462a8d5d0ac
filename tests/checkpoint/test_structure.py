"""Tests of `checkpoint.structure`: the architecture found in named tensors, and each broken file refused by name."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_SPEC, tiny_model
from torch import Tensor

from deploy_kit import checkpoint
from deploy_kit.checkpoint import structure
from deploy_kit.checkpoint.container import Contents, Facts
from deploy_kit.checkpoint.model import DenseNet
from deploy_kit.errors import CheckpointError
from deploy_kit.records import DenseBlock, DenseNetSpec

TRAINED = Path(__file__).parents[3] / "shared/checkpoints/trained/densenet121_fmnist64.pth.tar"
STATED = {"stem_stride": 1, "stem_pool": True, "eps": 1e-5}
PLAIN_SPEC = dataclasses.replace(
    TINY_SPEC,
    blocks=(DenseBlock(layers=2, growth=4, bottleneck=None), DenseBlock(layers=3, growth=6, bottleneck=None)),
    stem_norm=False,
    stem_pool=False,
)
IMAGENET_STEM = dataclasses.replace(TINY_SPEC, stem_kernel=7, stem_stride=2)


def weights(spec: DenseNetSpec = TINY_SPEC) -> dict[str, Tensor]:
    return dict(tiny_model(spec).state_dict())


def parse(tensors: dict[str, Tensor], facts: dict[str, Any] | None = None) -> structure.Parsed:
    contents = Contents(kind="test", tensors=tensors, facts=Facts(**(STATED if facts is None else facts)))
    return structure.parse(contents, "file")


def without(*parts: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in weights().items() if not any(part in name for part in parts)}


def sources_of(spec: DenseNetSpec) -> dict[str, str]:
    return dict(spec.sources)


@pytest.mark.parametrize("spec", [TINY_SPEC, PLAIN_SPEC, IMAGENET_STEM], ids=["bottleneck", "plain", "7x7 stem"])
def test_architecture_is_found_in_the_tensors(spec: DenseNetSpec) -> None:
    facts = {"stem_stride": spec.stem_stride, "stem_pool": spec.stem_pool, "eps": spec.eps}

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
    spec = parse(weights(), {"stem_stride": 2, "stem_pool": True, "eps": 1e-3}).spec

    assert (spec.stem_stride, spec.stem_pool, spec.eps) == (2, True, 1e-3)
    assert sources_of(spec) == dict.fromkeys(("stem_stride", "stem_pool", "eps"), "stated in the file")


@pytest.mark.parametrize(("stem", "stride", "pool"), [(TINY_SPEC, 1, False), (IMAGENET_STEM, 2, True)])
def test_facts_not_stated_follow_torchvision_and_are_called_a_convention(
    stem: DenseNetSpec, stride: int, pool: bool
) -> None:
    spec = parse(weights(stem), {}).spec

    assert (spec.stem_stride, spec.stem_pool, spec.eps) == (stride, pool, 1e-5)
    assert all(source.startswith("convention: ") for source in sources_of(spec).values())


@pytest.mark.parametrize("prefix", ["module.", "model.module.", "backbone."])
def test_common_prefix_is_stripped_and_remarked(prefix: str) -> None:
    parsed = parse({prefix + name: tensor for name, tensor in weights().items()})

    assert parsed.tensors.keys() == weights().keys()
    assert f"prefix '{prefix}' stripped" in parsed.remarks


def test_old_dotted_names_are_read_as_new_ones_and_remarked() -> None:
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)\.", r"\1.\2.", name): item for name, item in weights().items()}

    parsed = parse(old)

    assert parsed.tensors.keys() == weights().keys()
    assert "old names (norm.1) read as new ones (norm1)" in parsed.remarks[0]


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


@pytest.mark.parametrize(
    "name", ["features.norm0.bias", "features.denseblock2.denselayer1.norm2.running_var", "classifier.bias"]
)
def test_missing_tensor_is_named(name: str) -> None:
    tensors = weights()
    del tensors[name]

    message = rf"^file: DenseNet-BC-11 \(k = 4\) needs tensors that are missing: {re.escape(name)}$"
    with pytest.raises(CheckpointError, match=message):
        parse(tensors)


@pytest.mark.parametrize("name", ["classifier.weight", "features.transition1.conv.weight"])
def test_missing_tensor_that_the_architecture_is_read_from_is_named(name: str) -> None:
    tensors = weights()
    del tensors[name]

    with pytest.raises(CheckpointError, match=f"^file: '{re.escape(name)}' is missing$"):
        parse(tensors)


def test_long_list_of_missing_tensors_is_cut_and_counted() -> None:
    tensors = without("denseblock2.denselayer2.norm")

    with pytest.raises(CheckpointError, match=r"norm1\.bias, .* and 2 more$"):
        parse(tensors)


def test_tensor_left_over_is_named() -> None:
    tensors = weights() | {"features.se1.fc.weight": torch.zeros(4, 4)}

    with pytest.raises(CheckpointError, match=r"has no place for: features\.se1\.fc\.weight$"):
        parse(tensors)


def test_tensor_outside_the_network_is_named() -> None:
    tensors = {f"module.{name}": tensor for name, tensor in weights().items()} | {"teacher.weight": torch.zeros(4)}

    with pytest.raises(CheckpointError, match=r"^file: tensors outside the network: teacher\.weight$"):
        parse(tensors)


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("classifier.bias", (5,), "[4]"),
        ("features.denseblock1.denselayer2.conv1.weight", (16, 11, 1, 1), "[16, 12, 1, 1]"),
        ("features.norm5.running_mean", (15,), "[16]"),
    ],
)
def test_wrong_shape_is_named_with_what_was_expected(name: str, shape: tuple[int, ...], expected: str) -> None:
    tensors = weights() | {name: torch.zeros(shape)}

    message = re.escape(f"file: {name}: expected shape {expected}, found {list(shape)}")
    with pytest.raises(CheckpointError, match=message):
        parse(tensors)


@pytest.mark.parametrize(
    "name",
    [
        "features.conv0.weight",
        "classifier.weight",
        "features.transition1.conv.weight",
        "features.denseblock1.denselayer1.conv1.weight",
        "features.denseblock1.denselayer1.conv2.weight",
    ],
)
@pytest.mark.parametrize("rank", [0, 1, 2, 5])
def test_wrong_rank_is_refused_by_name(name: str, rank: int) -> None:
    tensors = weights() | {name: torch.zeros((4,) * rank)}

    with pytest.raises(CheckpointError, match=re.escape(name)):
        parse(tensors)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_no_number_is_named(value: float) -> None:
    tensors = weights()
    tensors["features.transition1.conv.weight"] = tensors["features.transition1.conv.weight"].clone()
    tensors["features.transition1.conv.weight"][0, 0] = value

    with pytest.raises(CheckpointError, match=r"^file: features\.transition1\.conv\.weight holds NaN or infinity$"):
        parse(tensors)


@pytest.mark.parametrize("block", [1, 2])
def test_missing_dense_layer_is_named(block: int) -> None:
    tensors = without(f"denseblock{block}.denselayer1")

    with pytest.raises(CheckpointError, match=f"^file: block {block} lacks denselayer1 of 2$"):
        parse(tensors)


def test_missing_last_dense_layer_is_noticed_by_the_width_behind_it() -> None:
    tensors = without("denseblock1.denselayer2")

    with pytest.raises(
        CheckpointError, match=r"features\.transition1\.norm\.weight: expected shape \[12\], found \[16\]"
    ):
        parse(tensors)


def test_missing_dense_block_is_noticed() -> None:
    tensors = without("denseblock1")

    with pytest.raises(CheckpointError, match=r"^file: expected dense blocks 1, 2, …, found \[2\]$"):
        parse(tensors)


def test_network_of_another_family_is_refused_with_a_sample_of_its_names() -> None:
    tensors = {f"layer{i}.0.conv1.weight": torch.zeros(4, 4, 3, 3) for i in range(1, 5)}

    with pytest.raises(
        CheckpointError, match=r"expected a DenseNet with torchvision's names .*layer1\.0\.conv1"
    ) as caught:
        parse(tensors)

    assert "rename the tensors as torchvision's densenet does" in caught.value.hint


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
    read = checkpoint.read(TRAINED)

    assert read.spec.title == "DenseNet-BC-121 (k = 32)"
    assert [block.layers for block in read.spec.blocks] == [6, 12, 24, 16]
    assert (read.spec.in_channels, read.spec.classes) == (3, 10)
    assert "weights taken from 'state_dict'" in read.remarks
