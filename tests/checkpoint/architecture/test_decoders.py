"""Tests of `decoders`: FC-DenseNets of several ports, against a network written out from the paper."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segmentation_networks import PORTS, FCDenseNet, made, state
from torch import Tensor
from whole_line import walk

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError, InputError
from deploy_kit.checkpoint.architecture import structure
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.network import map_sizes, paper_table
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.records.densenet import DenseNetSpec

# What ports do otherwise, and what of it is said by a flag where their names are unknown.
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "paper": ({}, {}),
    "all maps of the bottleneck, new ones of the last block, no biases": (
        {"middle_all": True, "last_new": True, "bias": False},
        {},
    ),
    "kernel 2": ({"kernel": 2}, {}),
    "kernel 4": ({"kernel": 4}, {}),
    "padding 1 and output padding 1": ({"late": True}, {"up_crop": "end"}),
    "the encoder's maps first": ({"skip_first": True}, {"skip_order": "skip_first"}),
    "gray, one level": ({"channels": 1, "down": (3,), "middle": 4}, {}),
}


def parse(tensors: dict[str, Tensor], *, strict: bool = False, **facts: Any) -> structure.ParsedStructure:
    stated = StatedFacts(facts=ArchitectureFacts(**facts), strict=strict)
    return structure.parse_structure(Contents(kind="torch zip", tensors=tensors), "net.pth", stated)


def rebuilt(parsed: structure.ParsedStructure) -> DenseNet:
    model = DenseNet(parsed.spec)
    model.load_state_dict(parsed.tensors)
    return model.eval().requires_grad_(False)


def equations(parsed: structure.ParsedStructure, spec: DenseNetSpec | None = None) -> Equations:
    return Equations(spec or parsed.spec, parsed.names, parsed.originals, channels_last=False)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5))


def off(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_rebuilt_network_and_equations_give_the_ports_own_answers(variant: str, port: str) -> None:
    options, facts = VARIANTS[variant]
    model = made(**options)
    x = noise(2, options.get("channels", 3), 16, 24)

    parsed = parse(state(model, port), **facts)

    assert off(rebuilt(parsed)(x), model(x)) <= 1e-5
    assert off(equations(parsed).logits(x.double())[0], model.double()(x.double())) <= 1e-12


@pytest.mark.parametrize(
    ("depth", "first", "down", "middle", "growth", "million"),
    [
        (56, 48, (4, 4, 4, 4, 4), 4, 12, 1.4),
        (67, 48, (5, 5, 5, 5, 5), 5, 16, 3.5),
        pytest.param(103, 48, (4, 5, 7, 10, 12), 15, 16, 9.4, marks=pytest.mark.slow),
    ],
)
def test_networks_of_the_paper_are_named_and_as_large_as_its_table_says(
    depth: int, first: int, down: tuple[int, ...], middle: int, growth: int, million: float
) -> None:
    """Jégou et al., table 3: parameters in millions; Theano counts a BN's statistics too."""
    torch.manual_seed(0)
    model = FCDenseNet(11, first, down, middle, growth)

    spec = parse(state(model)).spec

    assert spec.title == f"FC-DenseNet-{depth} (k = {growth})"
    numbers = (tensor for name, tensor in model.state_dict().items() if "num_batches" not in name)
    assert round(sum(tensor.numel() for tensor in numbers) / 1e6, 1) == million


def test_sides_that_do_not_halve_are_cropped_as_the_ports_do() -> None:
    model = made()
    x = noise(1, 3, 19, 26)

    parsed = parse(state(model))

    assert off(rebuilt(parsed)(x), model(x)) <= 1e-5
    assert [entry.sides for entry in map_sizes.maps(parsed.spec, (19, 26))][-1] == (19, 26)


@pytest.mark.parametrize("options", [{"kernel": 2}, {"late": True}], ids=str)
def test_size_that_a_decoder_cannot_give_is_refused_and_the_one_that_is_named_fits(options: dict[str, Any]) -> None:
    spec = parse(state(made(**options)), **({"up_crop": "end"} if "late" in options else {})).spec

    with pytest.raises(InputError, match="19×26 px is not halved evenly") as refused:
        map_sizes.maps(spec, (19, 26))

    sides = tuple(int(side) for side in refused.value.hint.rpartition(" ")[2].split("x"))
    assert map_sizes.maps(spec, sides)[-1].sides == sides


@pytest.mark.parametrize("skip_first", [False, True])
def test_bn_statistics_say_which_maps_come_first_in_a_joint(skip_first: bool) -> None:
    tensors = state(made(skip_first=skip_first), "a list of each")

    parsed = parse(tensors)

    assert parsed.sources["skip_order"].kind == "statistics"
    assert parsed.spec.decoder is not None
    assert parsed.spec.decoder.skip_order == ("skip_first" if skip_first else "up_first")


def test_port_that_its_bn_statistics_contradict_is_refused_and_the_flag_holds() -> None:
    model = made(skip_first=True)

    with pytest.raises(CheckpointError, match="skip_order: by its names this is pytorch_tiramisu") as refused:
        parse(state(model))

    assert "--skip-order up_first or skip_first" in refused.value.hint
    assert (
        off(rebuilt(parse(state(model), skip_order="skip_first"))(noise(1, 3, 16, 16)), model(noise(1, 3, 16, 16)))
        < 1e-5
    )


def test_facts_of_a_known_port_are_its_own_and_of_an_unknown_one_defaults_that_strict_refuses() -> None:
    model = made()

    known, unknown = parse(state(model), strict=True), parse(state(model, "a list of each"))

    assert {known.sources[name].kind for name in ("transition_pool", "up_crop")} == {"family"}
    assert {unknown.sources[name].kind for name in ("transition_pool", "up_crop")} == {"default"}
    assert any("up_crop = start" in remark for remark in unknown.remarks)
    with pytest.raises(CheckpointError, match=r"nothing in the file decides .*up_crop") as refused:
        parse(state(model, "a list of each"), strict=True)
    assert "--up-crop start or end" in refused.value.hint
    stated = {"up_crop": "start", "transition_pool": "max", "transition_relu": True, "activation": "relu"}
    stated |= {"dense_order": "norm_first", "transition_order": "norm_first", "skip_order": "up_first"}
    assert parse(state(model, "a list of each"), strict=True, **stated).spec.decoder == known.spec.decoder


def test_probe_finds_the_crop(tmp_path: Path) -> None:
    model, x = made(late=True), noise(1, 3, 16, 16)
    torch.save(state(model, "a list of each"), tmp_path / "net.pth")
    np.savez(tmp_path / "io.npz", input=x.numpy(), logits=model(x).numpy())

    read = checkpoint.read_checkpoint(tmp_path / "net.pth", StatedFacts(probe=str(tmp_path / "io.npz")))

    assert read.spec.decoder is not None
    assert read.spec.decoder.up_crop == "end"
    assert off(read.model(x), model(x)) <= 1e-5


@pytest.mark.parametrize(
    ("flag", "facts"), [("--head-pool", {"head_pool": "max"}), ("--upsampling", {"upsampling": "nearest"})]
)
def test_flag_of_another_kind_of_network_is_refused(flag: str, facts: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=f"{flag}: this network has no place for it"):
        parse(state(made()), **facts)


@pytest.mark.parametrize("change", [{"skip_order": "skip_first"}, {"up_crop": "end"}], ids=str)
def test_wrong_fact_is_no_rounding(change: dict[str, Any]) -> None:
    parsed, x = parse(state(made())), noise(1, 3, 16, 16)
    assert parsed.spec.decoder is not None
    wrong = dataclasses.replace(parsed.spec, decoder=dataclasses.replace(parsed.spec.decoder, **change))

    assert off(equations(parsed, wrong).logits(x)[0], equations(parsed).logits(x)[0]) > 1e-2


def test_one_weight_that_is_off_by_a_thousandth_shows_in_the_equations() -> None:
    parsed, x = parse(state(made())), noise(1, 3, 16, 16).double()
    wanted = equations(parsed).logits(x)[0]
    name = parsed.names["decoder.level1.up.weight"]
    changed = dataclasses.replace(parsed, originals={**parsed.originals, name: parsed.originals[name] * 1.001})

    assert off(equations(changed).logits(x)[0], wanted) > 1e-5


@pytest.mark.parametrize("part", ["denseBlocksUp.0.layers.1.", "denseBlocksDown.1.layers.1."])
def test_layer_that_is_missing_is_named(part: str) -> None:
    tensors = {name: tensor for name, tensor in state(made()).items() if not name.startswith(part)}

    with pytest.raises(CheckpointError, match=r"0, 2: 1 missing\?"):
        parse(tensors)


def test_tensor_without_a_place_is_named_and_can_be_left_out() -> None:
    tensors = state(made()) | {"auxiliary.weight": torch.zeros(5, 22, 1, 1)}

    with pytest.raises(CheckpointError, match=r"no place for: auxiliary\.weight"):
        parse(tensors)
    contents = Contents(kind="torch zip", tensors=tensors)
    assert structure.parse_structure(contents, "net.pth", StatedFacts(ignore=("auxiliary",))).spec.decoder is not None


def test_levels_that_fit_in_several_orders_are_taken_as_their_blocks_count_or_refused() -> None:
    model = made(down=(2, 2, 2), middle=2)
    names = {"0": "c", "1": "a", "2": "b"}

    def backwards(name: str) -> str:
        parts = name.split(".")
        if parts[0] in ("transUpBlocks", "denseBlocksUp"):
            parts[1] = str(2 - int(parts[1]))
        return ".".join(parts)

    def uncounted(name: str) -> str:
        parts = name.split(".")
        return f"up_{names[parts[1]]}.weight" if parts[0] == "transUpBlocks" else name

    tensors = state(model)
    x = noise(1, 3, 16, 16)

    assert off(rebuilt(parse({backwards(name): one for name, one in tensors.items()}))(x), model(x)) <= 1e-5
    bare = {name: one for name, one in tensors.items() if not name.endswith("convTrans.bias")}
    with pytest.raises(CheckpointError, match="several orders, and its names have no numbers that choose"):
        parse({uncounted(name): one for name, one in bare.items()})


def test_multiplications_are_those_that_hooks_count() -> None:
    model = made()
    spec = parse(state(model)).spec
    counted = [0]

    def count(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        weight = module.weight
        at = inputs[0] if isinstance(module, torch.nn.ConvTranspose2d) else output
        counted[0] += weight.numel() * at.shape[2] * at.shape[3]

    for part in model.modules():
        if isinstance(part, (torch.nn.Conv2d, torch.nn.ConvTranspose2d)):
            part.register_forward_hook(count)
    model(noise(1, 3, 16, 24))

    assert paper_table.macs(spec, (16, 24)) == counted[0]
    assert any("transposed conv" in text for _, text in paper_table.rows(spec, (16, 24)))


@pytest.mark.parametrize(("late", "crop"), [(False, "start"), (True, "end")])
def test_whole_module_says_how_its_transposed_convolutions_pad(late: bool, crop: str, tmp_path: Path) -> None:
    torch.save(made(late=late), tmp_path / "net.pth")

    read = checkpoint.read_checkpoint(tmp_path / "net.pth")

    assert read.spec.decoder is not None
    assert read.spec.decoder.up_crop == crop
    assert dict(read.spec.sources)["transition_pool"] == "attributes of the file's modules"
    model = made(late=late)
    model.transUpBlocks[0].convTrans.stride = (3, 3)
    torch.save(model, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=r"convTrans' has stride \(3, 3\), .*: not supported"):
        checkpoint.read_checkpoint(tmp_path / "net.pth")


@pytest.mark.parametrize("form", ["traced", "exported"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # torch's own
def test_graph_of_a_file_is_the_witness_of_what_no_tensor_says(form: str, tmp_path: Path) -> None:
    model, x = made(late=True), noise(1, 3, 16, 16)
    if form == "traced":
        torch.jit.trace(model, x).save(tmp_path / "net.pt")
    else:
        torch.export.save(torch.export.export(model, (x,)), tmp_path / "net.pt")

    read = checkpoint.read_checkpoint(tmp_path / "net.pt")

    assert read.spec.decoder is not None
    assert read.spec.decoder.up_crop == "end"
    assert dict(read.spec.sources)["up_crop"].startswith("the answers of ")
    assert off(read.model(x), model(x)) <= 1e-5


class Cut(torch.nn.Module):
    """A network whose first row of pixels is cut, which no fact explains."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[:, :, 1:]


def test_graph_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(Cut(made()), (noise(1, 3, 16, 16),)), tmp_path / "net.pt2")

    with pytest.raises(CheckpointError, match="gives other answers than the network rebuilt from it"):
        checkpoint.read_checkpoint(tmp_path / "net.pt2")


@pytest.mark.slow
def test_state_dict_passes_through_all_steps_as_a_map_of_classes(tmp_path: Path) -> None:
    torch.save(state(made()), tmp_path / "net.pth")

    walked = walk(tmp_path / "net.pth", tmp_path, sides=(32, 32))

    assert walked.exported.checkpoint.title == "FC-DenseNet-18 (k = 4)"
    for (precision, _), report in walked.parity.items():
        assert report.task is not None
        assert report.task.task == "segment"
        assert report.sqnr_db > (25 if precision == "int8" else 100)
