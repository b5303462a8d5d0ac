"""Tests of the file's own graph as witness: what a network computes otherwise than a DenseNet is never ignored.

torch itself gives the answers that a rebuilt network must have; Keras' own answers lie beside files that Keras wrote.
"""

import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keras_files import automatic_names, densenet_config, write_keras_2, write_nested
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.record import Checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.:DeprecationWarning", "ignore::torch.jit.TracerWarning")
SIDE = 32
FAULTS = Path(__file__).parents[3].parent / "shared" / "faults" / "checkpoints"


class Layer(nn.Module):
    """A dense layer; `order` and `dilation` are what a graph alone can show."""

    def __init__(self, width: int, growth: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(2 * growth)
        self.conv1 = nn.Conv2d(width, 2 * growth, 1, bias=False)
        dilation = options.get("dilation", 1)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.act, self.last_first = options.get("activation", functional.relu), options.get("dense_order") == "act"
        self.scale = options.get("layer_scale", 1.0)

    def normed(self, norm: nn.Module, x: Tensor) -> Tensor:
        y: Tensor = norm(self.act(x)) if self.last_first else self.act(norm(x))
        return y

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(self.normed(self.bn2, self.conv1(self.normed(self.bn1, x))))
        return torch.cat([x, new * self.scale if self.scale != 1 else new], 1)


class Net(nn.Module):
    """Two blocks of two layers, with one peculiarity or none."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.options = options
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.block1 = nn.Sequential(Layer(6, 4, options), Layer(10, 4, options))
        self.norm, self.conv = nn.BatchNorm2d(14), nn.Conv2d(14, 6, 1, bias=False)
        self.block2 = nn.Sequential(Layer(6, 4, options), Layer(10, 4, options))
        self.last = nn.BatchNorm2d(14)
        double = options.get("head") in ("avg_max", "max_avg")
        self.fc = nn.Linear(14 * (2 if double else 1), 5)

    def forward(self, x: Tensor) -> Tensor:
        if self.options.get("crops"):
            return (self.once(x) + self.once(x.flip(3))) / 2
        return self.once(x)

    def once(self, x: Tensor) -> Tensor:
        options, act = self.options, self.options.get("outer", self.options.get("activation", functional.relu))
        x = self.block1(self.stem(x))
        x = self.norm(act(x)) if options.get("transition_order") == "act" else act(self.norm(x))
        x = self.conv(x)
        pools: dict[str, Callable[..., Tensor]] = {"max": functional.max_pool2d, "none": lambda x, _: x}
        x = pools.get(options.get("pool", ""), functional.avg_pool2d)(x, 2)
        x = self.block2(x)
        orders = {"act": lambda x: self.last(act(x)), "none": lambda x: self.last(x)}
        x = orders.get(options.get("final", ""), lambda x: act(self.last(x)))(x)
        logits: Tensor = self.fc(self.pooled(x))
        return logits * options["scale"] if options.get("scale", 1.0) != 1 else logits

    def pooled(self, x: Tensor) -> Tensor:
        return {
            "max": lambda: x.amax((2, 3)),
            "avg_max": lambda: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1),
            "max_avg": lambda: torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1),
            "mean": lambda: 0.5 * (x.mean((2, 3)) + x.amax((2, 3))),
            "l2": lambda: functional.normalize(x.mean((2, 3))),
            "central": lambda: x[:, :, 2:-2, 2:-2].mean((2, 3)),
        }.get(self.options.get("head", ""), lambda: x.mean((2, 3)))()


# What the specification has a place for: exported right. Name → options of the net.
RIGHT: dict[str, dict[str, Any]] = {
    "plain": {},
    "ReLU before a transition's BN": {"transition_order": "act"},
    "ReLU before the last BN": {"final": "act"},
    "ReLU before BN in dense layers": {"dense_order": "act"},
    "no activation at the end": {"final": "none"},
    "no activation at all": {"activation": lambda x: x},
    "leaky activations of two slopes": {"activation": nn.LeakyReLU(0.1), "outer": nn.LeakyReLU(0.3)},
    "leaky in dense layers alone": {"activation": nn.LeakyReLU(0.15), "outer": functional.relu},
    "max pool in transitions": {"pool": "max"},
    "no pool in transitions": {"pool": "none"},
    "max at the end": {"head": "max"},
    "average, then max": {"head": "avg_max"},
    "max, then average": {"head": "max_avg"},
}
# What it has none for: refused.
REFUSED: dict[str, dict[str, Any]] = {
    "dilated convolutions": {"dilation": 2},
    "scaled logits": {"scale": 2.0},
    "scaled new features": {"layer_scale": 0.5},
    "mean of two crops": {"crops": True},
    "a part of the last map": {"head": "central"},
    "mean of both poolings": {"head": "mean"},
    "normalized features": {"head": "l2"},
}


def drawn(**options: Any) -> Net:
    """Draw weights, and set the BNs' statistics to those of real activations: no channel is dead, none is always on."""
    torch.manual_seed(0)
    net = Net(**options).requires_grad_(False)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.5)
            part.momentum = None
    net.train()(images(8, seed=2))
    return net.eval()


def images(n: int = 2, seed: int = 5) -> Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def trace(net: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(net, images(1), check_trace=False).save(str(path))
    return path


def export(net: nn.Module, path: Path) -> Path:
    torch.export.save(torch.export.export(net, (images(1),)), path)
    return path


WRITERS = {"TorchScript": trace, "torch.export": export}


def read(path: Path, **facts: Any) -> Checkpoint:
    return checkpoint.read_checkpoint(path, StatedFacts(facts=ArchitectureFacts(**facts)))


def off(network: Checkpoint, net: nn.Module) -> float:
    wanted = net(images())
    return float((network.model(images()) - wanted).abs().max() / wanted.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("case", RIGHT)
@pytest.mark.parametrize("kind", WRITERS)
def test_peculiar_network_is_rebuilt_as_its_graph_computes(kind: str, case: str, tmp_path: Path) -> None:
    net = drawn(**RIGHT[case])

    network = read(WRITERS[kind](net, tmp_path / "net.pt2"))

    assert network.witness is not None
    assert off(network, net) <= 1e-5


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("kind", WRITERS)
def test_network_that_cannot_be_rebuilt_is_refused(kind: str, case: str, tmp_path: Path) -> None:
    path = WRITERS[kind](drawn(**REFUSED[case]), tmp_path / "net.pt2")

    message = "which is not supported|has no place|gives other answers than"
    with pytest.raises(CheckpointError, match=message) as caught:
        read(path)

    assert "ONNX" in caught.value.hint


def test_refusal_names_the_first_layer_that_reads_something_else(tmp_path: Path) -> None:
    net = drawn()
    first, plain = net.block2[0], functional.relu
    first.register_forward_hook(lambda module, inputs, output: plain(output))

    with pytest.raises(
        CheckpointError, match=r"first difference is in what 'block2.1.bn1' reads, behind 'block2.0.conv2'"
    ):
        read(trace(net, tmp_path / "net.pt"))


def test_witness_notices_one_weight_that_is_a_thousandth_off(tmp_path: Path) -> None:
    network = read(trace(drawn(), tmp_path / "net.pt"))
    assert network.witness is not None
    x = images()
    same = network.witness.answers(x).difference(network.spec, network.model(x))
    weight = network.model.get_parameter("classifier.weight")
    network.model.classifier.weight = nn.Parameter(weight * 1.001, requires_grad=False)

    apart = network.witness.answers(x).difference(network.spec, network.model(x))

    assert same <= 2e-6
    assert 2e-4 < apart < 2e-3


def test_flag_that_the_graph_contradicts_is_refused(tmp_path: Path) -> None:
    path = trace(drawn(), tmp_path / "net.pt")

    with pytest.raises(CheckpointError, match=r"its TorchScript code gives other answers than the network rebuilt"):
        read(path, concat="prepend")


class Scripted(nn.Module):
    """Branches, loops, lists that grow, a function of torch.nn.functional: what tracing does not write."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"stem": nn.Conv2d(3, 6, 3, padding=1, bias=False)})
        self.layers = nn.ModuleList([Plain(6, 4), Plain(10, 4)])
        self.norm, self.fc = nn.BatchNorm2d(14), nn.Linear(14, 5)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.net["stem"](x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        x = functional.relu(self.norm(torch.cat(features, 1)))
        if x.shape[2] > 4:
            x = functional.adaptive_avg_pool2d(x, (1, 1))
        return self.fc(torch.flatten(x, 1))  # type: ignore[no-any-return]


class Plain(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.bn, self.conv = nn.BatchNorm2d(width), nn.Conv2d(width, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(functional.relu(self.bn(x)))  # type: ignore[no-any-return]


def test_scripted_module_is_witnessed_through_branches_and_loops(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Scripted().eval().requires_grad_(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(net).save(str(tmp_path / "net.pt"))

    network = read(tmp_path / "net.pt")

    assert off(network, net) <= 1e-5
    assert dict(network.spec.sources)["head_pool"] == "the answers of its TorchScript code"


class Widened(nn.Module):
    """Casts its input, which torch.export guards by an operator that gives nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.net = drawn()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.float())  # type: ignore[no-any-return]


def test_guards_of_an_exported_graph_compute_nothing(tmp_path: Path) -> None:
    net = Widened().eval()

    network = read(export(net, tmp_path / "net.pt2"))

    assert off(network, net) <= 1e-5


def test_network_that_was_saved_in_training_mode_is_told_how_to_save_it(tmp_path: Path) -> None:
    net = drawn().train()

    with pytest.raises(CheckpointError, match="changes a weight by 'add_', as in training") as caught:
        read(trace(net, tmp_path / "net.pt"))

    assert "model.eval()" in caught.value.hint
    assert off(read(trace(net.eval(), tmp_path / "net.pt")), net) <= 1e-5


@pytest.mark.slow
def test_dynamic_sizes_of_an_exported_program_are_followed(tmp_path: Path) -> None:
    net, sides = drawn(pool="none"), {0: torch.export.Dim("N"), 2: torch.export.Dim("H"), 3: torch.export.Dim("W")}
    torch.export.save(torch.export.export(net, (images(2),), dynamic_shapes=(sides,)), tmp_path / "net.pt2")

    network = read(tmp_path / "net.pt2")

    assert network.witness is not None
    assert network.witness.sides is None
    assert off(network, net) <= 1e-5


def test_size_that_an_exported_program_is_fixed_to_is_known(tmp_path: Path) -> None:
    network = read(export(drawn(), tmp_path / "net.pt2"))

    assert network.witness is not None
    assert network.witness.sides == (SIDE, SIDE)


def _variants() -> Iterator[dict[str, Any]]:
    """Draw networks with several peculiarities at a time."""
    draw = random.Random(7)
    for _ in range(10):
        yield {
            "transition_order": draw.choice(["", "act"]),
            "final": draw.choice(["", "act", "none"]),
            "dense_order": draw.choice(["", "act"]),
            "pool": draw.choice(["avg", "max", "none"]),
            "head": draw.choice(["avg", "max", "avg_max", "max_avg"]),
            "scale": draw.choice([1.0, 1.0, 1.0, 0.5]),
            "crops": draw.random() < 0.1,
        }


@pytest.mark.slow
@pytest.mark.parametrize("options", list(_variants()), ids=lambda options: "-".join(map(str, options.values())))
@pytest.mark.parametrize("kind", WRITERS)
def test_drawn_variant_is_rebuilt_right_or_refused(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    net = drawn(**options)
    path = WRITERS[kind](net, tmp_path / "net.pt2")
    expected = options["scale"] == 1 and not options["crops"]

    try:
        network = read(path)
    except CheckpointError:
        assert not expected
    else:
        assert off(network, net) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("name", "pool"), [("k02_functional_bn_head", "avg"), ("k06_cat_avg_max", "avg_max")])
def test_keras_file_gives_keras_own_answers(name: str, pool: str) -> None:
    if not FAULTS.is_dir():
        pytest.skip("needs ../shared/faults")
    arrays = np.load(FAULTS / f"{name}.io.npz")

    network = read(FAULTS / f"{name}.keras")
    found = network.model(torch.from_numpy(arrays["input"])).numpy()

    assert (network.spec.head_pool, network.witness and network.witness.sides) == (pool, (64, 64))
    assert np.abs(found - arrays["logits"]).max() <= 1e-5 * np.abs(arrays["logits"]).max()


def changed(config: dict[str, Any], change: Callable[[list[dict[str, Any]]], None]) -> dict[str, Any]:
    config = json.loads(json.dumps(config))
    change(config["config"]["layers"])
    return config


def _layer(layers: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(layer for layer in layers if layer["name"] == name)


def _behind(layers: list[dict[str, Any]], name: str, kind: str, **config: Any) -> None:
    """Put a layer behind another one, in front of its readers."""
    text = json.dumps(layers).replace(f'["{name}", 0, 0', f'["{kind.lower()}", 0, 0')
    layers[:] = json.loads(text)
    inbound = [[[name, 0, 0, {}]]]
    layers.append(
        {"class_name": kind, "name": kind.lower(), "config": {"name": kind.lower()} | config, "inbound_nodes": inbound}
    )


def _skip(layers: list[dict[str, Any]], name: str) -> None:
    """Take a layer out; its readers read what it read."""
    read = _layer(layers, name)["inbound_nodes"][0][0][0]
    layers[:] = json.loads(
        json.dumps([layer for layer in layers if layer["name"] != name]).replace(f'["{name}", 0, 0', f'["{read}", 0, 0')
    )


def _swap(layers: list[dict[str, Any]], *norms: str) -> None:
    """Put BNs behind the activations that follow them."""
    for name in norms:
        norm, act = _layer(layers, name), _layer(layers, f"{name}_relu")
        for layer in layers:
            if layer is not act:
                text = json.dumps(layer["inbound_nodes"]).replace(f'"{act["name"]}"', f'"{name}"')
                layer["inbound_nodes"] = json.loads(text)
        norm["inbound_nodes"], act["inbound_nodes"] = ([[[act["name"], 0, 0, {}]]], norm["inbound_nodes"])


def _twice(layers: list[dict[str, Any]]) -> None:
    """Average the last map with that of the turned one."""
    _behind(layers, "bn_relu", "Average")
    turned = {"name": "turned", "dims": [2, 1, 3]}
    layers.append(
        {"class_name": "Permute", "name": "turned", "config": turned, "inbound_nodes": [[["bn_relu", 0, 0, {}]]]}
    )
    _layer(layers, "average")["inbound_nodes"] = [[["bn_relu", 0, 0, {}], ["turned", 0, 0, {}]]]


def _both_pools(*order: str) -> Callable[[list[dict[str, Any]]], None]:
    def change(layers: list[dict[str, Any]]) -> None:
        _behind(layers, "avg_pool", "Concatenate", axis=-1)
        layers.append(_layer(layers, "avg_pool") | {"class_name": "GlobalMaxPooling2D", "name": "max_pool",
                                                    "config": {"name": "max_pool"}})  # fmt: skip
        _layer(layers, "concatenate")["inbound_nodes"] = [[[name, 0, 0, {}] for name in order]]

    return change


_DENSE = [f"dense{block}_{layer}_bn{at}" for block in (1, 2) for layer in (0, 1) for at in (1, 2)]
KERAS: dict[str, tuple[Callable[[list[dict[str, Any]]], None], bool]] = {
    "no last activation": (lambda layers: _skip(layers, "bn_relu"), True),
    "no pool in the transition": (lambda layers: _skip(layers, "pool2"), True),
    "global maximum": (lambda layers: _layer(layers, "avg_pool").update(class_name="GlobalMaxPooling2D"), True),
    "dilated": (lambda layers: _layer(layers, "dense1_0_conv2")["config"].update(dilation_rate=[2, 2]), False),
    "extra activation": (lambda layers: _behind(layers, "dense1_1_conv2", "ReLU"), False),
    "scaled features": (lambda layers: _behind(layers, "dense1_1_conv2", "Rescaling", scale=0.5, offset=0), False),
    "ReLU before BN": (lambda layers: _swap(layers, *_DENSE), True),
    "ReLU before BN in one layer": (lambda layers: _swap(layers, "dense1_1_bn2"), False),
    "ReLU before the transition's BN": (lambda layers: _swap(layers, "trans_bn"), True),
    "mean of two crops": (_twice, False),
    "average, then max": (_both_pools("avg_pool", "max_pool"), True),
    "max, then average": (_both_pools("max_pool", "avg_pool"), True),
    "extra BN's scale": (lambda layers: _layer(layers, "bn")["config"].update(epsilon=0.5), False),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", KERAS)
def test_keras_config_is_the_witness_of_what_is_rebuilt(case: str, tmp_path: Path) -> None:
    change, right = KERAS[case]
    options = {"head_pool": "max_avg"} if "average" in case and "max" in case else {}
    path = write_keras_2(tmp_path / "net.h5", changed(densenet_config(2), change), **options)

    if not right:
        with pytest.raises(CheckpointError, match=r"which is not supported|has no place|gives other answers than"):
            read(path)
        return
    network = read(path)

    assert network.witness is not None
    if options:
        assert network.spec.head_pool == ("avg_max" if case.startswith("average") else "max_avg")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    assert network.witness.answers(x).difference(network.spec, network.model(x)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("start", [1, 95])
def test_structure_is_in_the_graph_where_keras_names_tell_nothing(start: int, tmp_path: Path) -> None:
    plain = read(write_keras_2(tmp_path / "plain.h5", densenet_config(2)))

    network = read(write_keras_2(tmp_path / "flat.h5", densenet_config(2), names=automatic_names(start)))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))

    assert torch.equal(network.model(x), plain.model(x))
    assert network.spec.blocks == plain.spec.blocks


@pytest.mark.slow
def test_variables_of_a_model_that_was_built_again_are_found(tmp_path: Path) -> None:
    plain = read(write_keras_2(tmp_path / "plain.h5", densenet_config(2)))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))

    again = read(write_keras_2(tmp_path / "again.h5", densenet_config(2), built="_2"))
    within = read(write_nested(tmp_path / "within.h5", densenet_config(2), built="_1"))

    assert torch.equal(again.model(x), plain.model(x))
    assert torch.equal(within.model(x), plain.model(x))


def leaky(layer: str, other: float, rest: float = 0.1) -> dict[str, Any]:
    """Return the config of a network of leaky activations, one of which has another slope."""
    config = densenet_config(2)
    for entry in config["config"]["layers"]:
        if entry["class_name"] == "Activation":
            entry["class_name"], entry["config"] = "LeakyReLU", {"name": entry["name"], "alpha": rest}
    _layer(config["config"]["layers"], layer)["config"]["alpha"] = other
    # The border of the stem's pool is 0: for a maximum of negative values another one than torch's.
    _layer(config["config"]["layers"], "pool1")["class_name"] = "AveragePooling2D"
    return config


@pytest.mark.parametrize(("rest", "kind"), [(0.1, "leaky_relu"), (0.0, "relu")])
def test_stem_of_another_slope_is_rebuilt_with_it(tmp_path: Path, rest: float, kind: str) -> None:
    found = read(write_keras_2(tmp_path / "net.h5", leaky("bn0_relu", 0.2, rest)))

    assert (found.spec.activation, found.spec.active("outer")[0]) == (kind, kind)
    assert found.spec.active("stem") == ("leaky_relu", 0.2)
    assert kind == "relu" or found.spec.active("dense") == found.spec.active("outer") == ("leaky_relu", 0.1)


def test_leaky_slopes_that_differ_in_dense_layers_are_refused_and_never_averaged(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"different slopes in one part of the network, 0\.1, 0\.2"):
        read(write_keras_2(tmp_path / "net.h5", leaky("dense1_0_bn1_relu", 0.2)))
