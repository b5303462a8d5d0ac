"""A reader, not a list of names: networks and names drawn at random are read back exactly, with the same logits."""

import dataclasses

import pytest
import torch
from families import (
    FAMILIES,
    KUANGLIU,
    NO_RELU,
    TORCHVISION,
    TUTORIAL,
    Tensors,
    cifar,
    drawn,
    linear,
    named,
    random_names,
    small,
    trained,
)  # fmt: skip
from torch import nn

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import structure
from deploy_kit.checkpoint.architecture.structure import ParsedStructure
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv

SEEDS = range(40)


def stated(spec: DenseNetSpec) -> ArchitectureFacts:
    """Return all facts of a network that its tensors cannot give."""
    return ArchitectureFacts(
        stem_stride=spec.stem[0].stride,
        stem_pool=spec.stem_pool,
        eps=spec.eps,
        concat=spec.concat,
        transition_relu=spec.transition_relu,
        transition_pool=spec.transition_pool,
        final_relu=spec.final_relu,
        activation=spec.activation,
        outer_activation=spec.outer_activation,
        hidden_activation=spec.hidden_activation,
        head_pool=spec.head_pool,
    )


def read(
    tensors: Tensors, facts: ArchitectureFacts | None = None, *, name: str = "file", **said: object
) -> ParsedStructure:
    asked = StatedFacts(facts=facts or ArchitectureFacts(), **said)  # type: ignore[arg-type]
    return structure.parse_structure(Contents(kind="torch zip", tensors=tensors), name, asked)


def rebuilt(parsed: ParsedStructure) -> DenseNet:
    model = DenseNet(parsed.spec).eval()
    model.load_state_dict(parsed.tensors, strict=True)
    return model


def images(spec: DenseNetSpec, side: int = 32) -> torch.Tensor:
    return torch.randn(2, spec.in_channels, *[side] * spec.ndim, generator=torch.Generator().manual_seed(1))


def plain(spec: DenseNetSpec) -> DenseNetSpec:
    return dataclasses.replace(spec, sources=())


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_any_network_under_any_names_in_any_order_is_read_back_exactly(seed: int) -> None:
    spec, names = drawn(seed), random_names(seed)
    model = trained(spec, seed=seed, statistics=False)

    parsed = read(named(model, names, shuffle=seed), stated(spec))

    assert plain(parsed.spec) == spec
    torch.testing.assert_close(rebuilt(parsed)(images(spec)), model(images(spec)), rtol=1e-6, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:12])
def test_equations_on_the_files_own_tensors_agree_with_the_rebuilt_network(seed: int) -> None:
    spec = drawn(seed)
    parsed = read(named(trained(spec, seed=seed, statistics=False), random_names(seed)), stated(spec))
    x = images(spec).double()

    found = Equations(parsed.spec, parsed.names, parsed.originals, channels_last=False).logits(x)

    torch.testing.assert_close(found[0], rebuilt(parsed).double()(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_family_is_read_without_a_word_from_anyone(family: str) -> None:
    model = trained(small())

    parsed = read(named(model, FAMILIES[family], shuffle=3))

    torch.testing.assert_close(rebuilt(parsed)(images(small())), model(images(small())), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module.", "net.backbone."])
def test_prefix_of_any_kind_makes_no_difference(prefix: str) -> None:
    model = trained(small())

    parsed = read({prefix + name: tensor for name, tensor in named(model, TORCHVISION).items()})

    assert plain(parsed.spec) == small()


@pytest.mark.parametrize(("concat", "word"), [("append", "appended"), ("prepend", "prepended")])
def test_order_of_concatenation_is_proved_by_bn_statistics(concat: str, word: str) -> None:
    spec = cifar(concat=concat)
    names = random_names(7, n_stem=1)

    parsed = read(named(trained(spec), names))

    assert parsed.spec.concat == concat
    assert dict(parsed.spec.sources)["concat"].startswith("BN statistics: channels repeat in")


@pytest.mark.parametrize("relu", [True, False])
def test_relu_in_the_transition_is_proved_by_bn_statistics(relu: bool) -> None:
    parsed = read(named(trained(cifar(transition_relu=relu)), random_names(7, n_stem=1)))

    assert parsed.spec.transition_relu is relu
    assert dict(parsed.spec.sources)["transition_relu"].startswith("BN statistics: next block's means are")


@pytest.mark.parametrize("pool", ["none", "max"])
def test_stem_pool_of_an_adapted_stem_is_proved_by_bn_statistics(pool: str) -> None:
    spec = small(stem=(StemConv(channels=10, kernel=(3, 3), stride=(1, 1)),), stem_pool=pool)
    model = trained(spec)

    parsed = read(named(model, TORCHVISION))

    assert parsed.spec.stem_pool == pool
    torch.testing.assert_close(rebuilt(parsed)(images(spec)), model(images(spec)), rtol=1e-6, atol=1e-6)


def test_adapted_stem_without_statistics_of_data_must_be_asked_for() -> None:
    spec = small(stem=(StemConv(channels=10, kernel=(3, 3), stride=(1, 1)),), stem_pool="none")

    with pytest.raises(CheckpointError, match="the file cannot say: stem pool") as caught:
        read(named(trained(spec, statistics=False), TORCHVISION))

    assert "--stem-pool" in caught.value.hint and "--probe" in caught.value.hint


def test_family_that_bn_statistics_contradict_stops() -> None:
    appended = named(trained(cifar(concat="append")), KUANGLIU)

    with pytest.raises(
        CheckpointError, match=r"kuangliu pytorch-cifar \(prepend\), its BN statistics say append"
    ) as caught:
        read(appended)

    assert "--concat" in caught.value.hint


@pytest.mark.parametrize("family", ["torchvision", "none"])
@pytest.mark.parametrize("changes", [{"transition_pool": "max"}, {"activation": "elu", "outer_activation": "elu"}])
def test_transitions_that_bn_statistics_rule_out_are_asked_for(family: str, changes: dict[str, str]) -> None:
    spec = small(**changes)
    tensors = named(trained(spec), FAMILIES.get(family) or random_names(7))

    asked = "--activation" if "activation" in changes else "--transition-pool"
    with pytest.raises(
        CheckpointError, match=r"BN statistics fit no ReLU and average pool|the file cannot say: activation"
    ) as caught:
        read(tensors)

    assert asked in caught.value.hint
    parsed = read(tensors, ArchitectureFacts(**{"transition_pool": "avg"} | changes))  # type: ignore[arg-type]
    torch.testing.assert_close(rebuilt(parsed)(images(spec)), trained(spec)(images(spec)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("family", ["torchvision", "none"])
def test_activation_of_the_dense_layers_is_carried_outside_and_remarked(family: str) -> None:
    tensors = named(trained(small(activation="elu"), statistics=False), FAMILIES.get(family) or random_names(7))

    parsed = read(tensors, ArchitectureFacts(activation="elu"))

    assert parsed.spec.outer_activation == "elu"
    assert any(remark.startswith("outer_activation = elu: nothing in the file decides it") for remark in parsed.remarks)
    with pytest.raises(CheckpointError, match=r"decides.* outer_activation"):
        read(tensors, ArchitectureFacts(activation="elu"), strict=True)


def test_index_gap_that_bn_statistics_contradict_stops() -> None:
    no_gap = dataclasses.replace(TUTORIAL, transition=("down.{b}.0", "down.{b}.1"))

    with pytest.raises(CheckpointError, match="says false, BN statistics say true") as caught:
        read(named(trained(small()), no_gap))

    assert "--transition-relu" in caught.value.hint


def test_convolution_behind_the_last_block_is_the_head_unless_it_is_named_as_a_transition() -> None:
    model = trained(small())
    tensors = named(model, TORCHVISION)
    weight, bias = (tensors.pop(f"classifier.{part}") for part in ("weight", "bias"))
    head = {"score.weight": weight[:, :, None, None], "score.bias": bias}

    parsed = read(tensors | head)

    torch.testing.assert_close(rebuilt(parsed)(images(small())), model(images(small())), rtol=1e-6, atol=1e-6)
    norm = {name.replace("norm5", "transition3.norm"): tensor for name, tensor in tensors.items()}
    with pytest.raises(CheckpointError, match="no classifier behind the 5 channels"):
        read(norm | {"features.transition3.conv.weight": weight[:, :, None, None]})


NORMS = {
    "spectral": nn.utils.parametrizations.spectral_norm,
    "spectral, old form": nn.utils.spectral_norm,
    "weight": nn.utils.parametrizations.weight_norm,
    "weight, old form": nn.utils.weight_norm,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")  # torch's own
@pytest.mark.parametrize(
    ("kind", "axis"),
    [(kind, axis) for kind in NORMS for axis in (0, 1, None) if axis is not None or kind.startswith("weight")],
)
def test_norms_of_weights_are_folded_along_whatever_axis(kind: str, axis: int | None) -> None:
    model = trained(small(), statistics=False).requires_grad_(True)
    for part in [part for part in model.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]:
        NORMS[kind](part, dim=axis)
    model.eval().requires_grad_(False)

    parsed = read(model.state_dict())

    torch.testing.assert_close(rebuilt(parsed)(images(small())), model(images(small())), rtol=1e-5, atol=1e-5)


def test_spectral_norm_of_a_square_weight_is_along_the_axis_that_power_iteration_took() -> None:
    # Ten to ten channels of 1×1: the lengths of u and v say nothing of the axis.
    spec = small(blocks=tuple(DenseBlock(layers=1, growth=2, bottleneck=10) for _ in range(2)), transitions=(10,))
    model = trained(spec, statistics=False).requires_grad_(True)
    square = model.get_submodule("features.denseblock1.denselayer1.conv1")
    assert square.weight.shape[:2] == (10, 10)
    nn.utils.spectral_norm(square, dim=1, n_power_iterations=50)
    model.eval().requires_grad_(False)

    parsed = read(model.state_dict())

    torch.testing.assert_close(rebuilt(parsed)(images(spec)), model(images(spec)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"weight_g": (3,), "weight_v": (5, 33)}, r"'classifier.weight_g' of shape \[3\] holds no lengths"),
        ({"weight_orig": (5, 33), "weight_mask": (5, 1, 33)}, r"its mask 'classifier.weight_mask' \[5, 1, 33\]"),
        ({"weight_orig": (5, 33), "weight_u": (4,), "weight_v": (33,)}, r"has no axis whose spectral norm 4 and 33"),
    ],
)
def test_parts_of_a_weight_that_do_not_fit_each_other_are_refused(
    parts: dict[str, tuple[int, ...]], message: str
) -> None:
    tensors = named(trained(small()), TORCHVISION)
    del tensors["classifier.weight"]

    with pytest.raises(CheckpointError, match=message) as refused:
        read(tensors | {f"classifier.{part}": torch.ones(shape) for part, shape in parts.items()})

    assert "torch.nn.utils.prune.remove(" in refused.value.hint


def test_modules_of_a_pickled_head_and_transition_state_their_activations() -> None:
    spec = small(heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=7),
                 HeadLayer(kind="activation"), HeadLayer(kind="linear", channels=5))),))  # fmt: skip
    tensors = {name.replace("head.", "top."): tensor for name, tensor in trained(spec).state_dict().items()}
    modules = {"top": "Sequential", "top.0": "Linear", "top.1": "LeakyReLU", "top.2": "Linear", "top.3": "Softmax"}
    stated = {path: {"class": f"torch.nn.{kind}"} for path, kind in modules.items()}
    stated["top.1"]["negative_slope"] = 0.3  # type: ignore[assignment]
    stated["features.transition1.relu"] = {"class": "torch.nn.ELU"}

    def parse() -> ParsedStructure:
        return structure.parse_structure(Contents(kind="torch zip", tensors=tensors, attributes=stated), "file")

    found = parse().spec
    assert (found.hidden_activation, found.slope, found.outer_activation) == ("leaky_relu", 0.3, "elu")
    assert any("ends with softmax" in remark for remark in parse().remarks)
    stated["features.denseblock1.denselayer1.relu1"] = {"class": "torch.nn.LeakyReLU", "negative_slope": 0.1}
    two = parse().spec
    assert (two.slope, two.hidden_slope, two.active("hidden")) == (0.1, 0.3, ("leaky_relu", 0.3))
    stated["features.denseblock1.denselayer2.relu1"] = {"class": "torch.nn.LeakyReLU", "negative_slope": 0.2}
    with pytest.raises(CheckpointError, match=r"different slopes in one part of the network: 0.1, 0.2"):
        parse()
    stated["top.1"]["class"] = "torch.nn.Tanh"
    with pytest.raises(CheckpointError, match="one of its modules is Tanh, an activation that is not supported"):
        parse()


def test_flag_ends_a_contradiction_and_is_remarked() -> None:
    parsed = read(named(trained(cifar(concat="append")), KUANGLIU), ArchitectureFacts(concat="append"))

    assert (parsed.spec.concat, dict(parsed.spec.sources)["concat"]) == ("append", "flag")


def test_flag_against_bn_statistics_holds_and_is_remarked() -> None:
    parsed = read(named(trained(cifar(concat="append")), KUANGLIU), ArchitectureFacts(concat="prepend"))

    assert parsed.spec.concat == "prepend"
    assert any("flag says prepend and holds, BN statistics say append" in remark for remark in parsed.remarks)


def test_names_decide_where_statistics_are_silent() -> None:
    parsed = read(named(trained(cifar(concat="prepend"), statistics=False), KUANGLIU))

    assert parsed.spec.concat == "prepend"
    assert dict(parsed.spec.sources)["concat"] == "family 'kuangliu pytorch-cifar', by its names"


def test_index_gap_says_that_a_transition_has_no_relu() -> None:
    model = trained(cifar(transition_relu=False), statistics=False)
    names = dataclasses.replace(NO_RELU, stem=(("stem", "-"),), layer=TUTORIAL.layer)

    parsed = read(named(model, names))

    assert parsed.spec.transition_relu is False
    assert dict(parsed.spec.sources)["transition_relu"] == "index gap in its names"


def test_unknown_names_without_statistics_are_guessed_aloud_and_refused_if_strict() -> None:
    tensors = named(trained(cifar(), statistics=False), random_names(7, n_stem=1))

    guessed = read(tensors).remarks[-1]
    with pytest.raises(CheckpointError, match=r"nothing in the file decides .*concat") as caught:
        read(tensors, strict=True)

    assert (
        guessed.startswith("nothing in the file decides these, taken as in the paper: ")
        and "concat = append" in guessed
    )
    assert "--concat append or prepend" in caught.value.hint


def test_network_that_was_never_trained_is_called_so() -> None:
    torch.manual_seed(0)

    parsed = read(named(DenseNet(small()), TORCHVISION))

    assert "its BN statistics are initial values: this network was never trained" in parsed.remarks


def test_deep_stem_is_asked_for_because_a_blur_leaves_no_trace() -> None:
    deep = tuple(StemConv(channels=c, kernel=(3, 3), stride=(s, s)) for c, s in ((6, 2), (8, 1), (10, 1)))
    tensors = named(trained(small(stem=deep)), TORCHVISION)

    with pytest.raises(CheckpointError, match="the file cannot say: stem pool"):
        read(tensors)
    by_name = read(tensors, name="somewhere/densenet264d.pth").spec
    with pytest.raises(CheckpointError, match="the file cannot say: stem pool"):
        read(tensors, name="somewhere/densenetblur121d.pth")

    assert (by_name.stem_pool, dict(by_name.sources)["stem_pool"]) == ("max", "the file's name, 'densenet264d.pth'")


def test_3d_network_of_no_known_family_is_asked_for_its_stride_along_time() -> None:
    block = DenseBlock(layers=2, growth=4, bottleneck=8, kernel=(3, 3, 3))
    spec = small(
        stem=(StemConv(channels=8, kernel=(5, 7, 7), stride=(1, 2, 2)),), blocks=(block, block), transitions=(8,)
    )
    tensors = named(trained(spec), TORCHVISION)

    with pytest.raises(CheckpointError, match="the file cannot say: stem stride") as caught:
        read(tensors)
    said = read(tensors, ArchitectureFacts(stem_stride=(1, 2, 2))).spec

    assert "--stem-stride 2 (or one number an axis: 1,2,2)" in caught.value.hint
    assert (said.stem[0].stride, said.stem_pool) == ((1, 2, 2), "max")


def test_variant_that_shares_its_names_is_asked_for() -> None:
    steps = (HeadLayer(kind="linear", channels=8), HeadLayer(kind="activation"), HeadLayer(kind="linear", channels=5))
    spec = small(heads=(Head(name="logits", layers=steps),))
    renamed = {
        name.replace("linear.0.", "linear.").replace("linear.2.", "linear_f."): tensor
        for name, tensor in with_head(named(trained(spec), TUTORIAL), trained(spec), "linear").items()
    }

    with pytest.raises(CheckpointError, match="the file cannot say: activation, hidden activation") as caught:
        read(renamed)

    assert "has variants" in str(caught.value) and "--activation" in caught.value.hint


def with_head(tensors: Tensors, model: DenseNet, name: str) -> Tensors:
    """Replace the one linear layer by a chain of head layers under its own names."""
    rest = {key: tensor for key, tensor in tensors.items() if not key.startswith(name + ".")}
    return rest | {f"{name}.{key}": tensor for key, tensor in model.head.state_dict().items()}


def headed(steps: tuple[HeadLayer, ...], **changes: object) -> tuple[DenseNet, Tensors]:
    model = trained(small(heads=(Head(name="logits", layers=steps),), **changes))
    return model, with_head(named(model, TORCHVISION), model, "classifier")


def test_chain_of_linear_layers_is_one_head_and_a_gap_shows_its_activation() -> None:
    steps = (HeadLayer(kind="linear", channels=8), HeadLayer(kind="activation"), HeadLayer(kind="linear", channels=5))
    model, tensors = headed(steps)

    parsed = read(tensors)

    assert parsed.spec.heads[0].layers == steps
    torch.testing.assert_close(rebuilt(parsed)(images(small())), model(images(small())), rtol=1e-6, atol=1e-6)


def test_linear_layers_without_a_gap_have_no_activation_between() -> None:
    steps = (HeadLayer(kind="linear", channels=8), HeadLayer(kind="linear", channels=5))

    assert read(headed(steps)[1]).spec.heads[0].layers == steps


def test_fastai_head_is_read_with_its_two_pools_and_bns() -> None:
    steps = (
        HeadLayer(kind="norm", channels=36), HeadLayer(kind="linear", channels=8, bias=False),
        HeadLayer(kind="activation"), HeadLayer(kind="norm", channels=8),
        HeadLayer(kind="linear", channels=5, bias=False),
    )  # fmt: skip
    spec = small(heads=(Head(name="logits", layers=steps),), head_pool="max_avg", final_relu=False)
    model = trained(spec)
    places = {"0": "2", "1": "4", "3": "6", "4": "8"}
    tensors = {
        name.replace("features.", "0.0."): tensor
        for name, tensor in named(model, TORCHVISION).items()
        if name.startswith("features.")
    }
    tensors |= {f"1.{places[key.split('.')[0]]}.{key.split('.')[1]}": t for key, t in model.head.state_dict().items()}

    parsed = read(tensors)

    assert (parsed.spec.head_pool, parsed.spec.final_relu, parsed.spec.heads[0].layers) == ("max_avg", False, steps)
    torch.testing.assert_close(rebuilt(parsed)(images(spec)), model(images(spec)), rtol=1e-6, atol=1e-6)


def test_linear_layers_side_by_side_are_heads_by_name() -> None:
    tensors = named(trained(small()), TORCHVISION)
    two = {name.replace("classifier", "age"): tensor for name, tensor in tensors.items()}
    two |= {"sex.weight": torch.randn(2, 18), "sex.bias": torch.zeros(2)}

    parsed = read(two)
    age, sex = rebuilt(parsed)(images(small()))

    assert [(head.name, head.classes) for head in parsed.spec.heads] == [("age", 5), ("sex", 2)]
    assert (age.shape, sex.shape) == ((2, 5), (2, 2))


def test_one_of_several_heads_can_be_chosen() -> None:
    tensors = named(trained(small()), TORCHVISION) | {"sex.weight": torch.randn(2, 18), "sex.bias": torch.zeros(2)}

    parsed = read(tensors, head="sex")

    assert parsed.spec.classes == 2
    assert "heads left out, as asked: classifier" in parsed.remarks


def test_heads_that_share_a_layer_share_a_trunk() -> None:
    tensors = named(trained(small(heads=linear(8))), TORCHVISION)
    two = {name.replace("classifier", "shared"): tensor for name, tensor in tensors.items()}
    two |= {"task_a.weight": torch.randn(2, 8), "task_a.bias": torch.zeros(2)}
    two |= {"task_b.weight": torch.randn(3, 8), "task_b.bias": torch.zeros(3)}

    parsed = read(two)

    assert [step.kind for step in parsed.spec.trunk] == ["linear"]
    assert [head.classes for head in parsed.spec.heads] == [2, 3]


def test_flattened_map_fixes_its_side() -> None:
    spec = cifar(head_pool="flatten", map_side=2, heads=linear(3))
    model = trained(spec, side=8)

    parsed = read(named(model, TORCHVISION))

    assert (parsed.spec.head_pool, parsed.spec.map_side) == ("flatten", 2)
    torch.testing.assert_close(rebuilt(parsed)(images(spec, 8)), model(images(spec, 8)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(3,), (3, 1, 1), (1, 3, 1, 1)])
@pytest.mark.parametrize("names", [("mean", "std"), ("normalize.mean", "normalize.std"), ("pixel_mean", "pixel_std")])
def test_normalization_in_the_file_stays_in_the_network(shape: tuple[int, ...], names: tuple[str, str]) -> None:
    model = trained(small())
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    buffers = {names[0]: mean.reshape(shape), names[1]: std.reshape(shape)}
    x = images(small())

    parsed = read(named(model, TORCHVISION) | buffers)

    assert any(remark.startswith("it normalizes its input itself") for remark in parsed.remarks)
    wanted = model((x - mean[:, None, None]) / std[:, None, None])
    torch.testing.assert_close(rebuilt(parsed)(x), wanted, rtol=1e-5, atol=1e-5)


def test_bns_folded_into_their_convolutions_are_read() -> None:
    blocks = tuple(
        DenseBlock(layers=2, growth=4, bottleneck=12, biases=(True, False), bottleneck_norm=False) for _ in "ab"
    )
    stem = (StemConv(channels=10, kernel=(7, 7), stride=(2, 2), bias=True, norm=False, relu=True),)
    spec = small(stem=stem, blocks=blocks, transitions=(9,))
    model = trained(spec)

    parsed = read(named(model, TORCHVISION))

    assert plain(parsed.spec) == spec
    torch.testing.assert_close(rebuilt(parsed)(images(spec)), model(images(spec)), rtol=1e-6, atol=1e-6)


def test_pruned_weights_are_multiplied_by_their_masks() -> None:
    model, mask = trained(small()), torch.ones(12, 10, 1, 1)
    mask[::2] = 0
    tensors = named(model, TORCHVISION)
    name = "features.denseblock1.denselayer1.conv1"
    weight = tensors.pop(f"{name}.weight")

    parsed = read(tensors | {f"{name}.weight_orig": weight, f"{name}.weight_mask": mask})

    assert "1 pruned weights multiplied by their masks" in parsed.remarks
    assert torch.equal(parsed.tensors[f"{name}.weight"], weight * mask)


def test_blocks_whose_names_have_no_numbers_and_whose_widths_do_not_tell_are_refused() -> None:
    same = tuple(DenseBlock(layers=2, growth=5, bottleneck=12) for _ in "abc")
    words = {"1": "front", "2": "middle", "3": "back"}
    tensors = {
        name.replace("denseblock" + key, word).replace("transition" + key, "after_" + word): tensor
        for key, word in words.items()
        for name, tensor in named(trained(cifar(blocks=same, transitions=(10, 10))), TORCHVISION).items()
        if f"block{key}" in name
        or f"transition{key}" in name
        or (key == "1" and "denseb" not in name and "trans" not in name)
    }

    with pytest.raises(CheckpointError, match="the blocks fit in several orders, and their names have no numbers"):
        read(tensors)


def test_blocks_whose_names_have_no_numbers_are_ordered_by_their_widths() -> None:
    words = {"1": "zulu", "2": "mike", "3": "alpha"}
    spec = cifar(transitions=(9, 11))
    tensors = {}
    for name, tensor in named(trained(spec), TORCHVISION).items():
        for key, word in words.items():
            name = name.replace(f"denseblock{key}", word).replace(f"transition{key}", f"after_{word}")
        tensors[name] = tensor

    assert plain(read(tensors).spec) == spec


def test_stem_bns_that_could_change_places_are_refused() -> None:
    deep = tuple(StemConv(channels=10, kernel=(3, 3), stride=(s, s)) for s in (2, 1))
    stem = (("features.apple", "features.pear"), ("features.plum", "features.fig"))
    names = dataclasses.replace(TORCHVISION, stem=stem)

    with pytest.raises(CheckpointError, match=r"the stem fits in several orders|fit .* either way"):
        read(named(trained(small(stem=deep)), names), ArchitectureFacts(stem_pool="max"))
