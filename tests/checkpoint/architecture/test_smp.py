"""Tests of decoders of segmentation_models_pytorch: what is asked, what its config says, what is refused by its name.

That the rebuilt networks compute what its own modules do is a test of `test_implementations`.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import small, trained
from torch import Tensor
from whole_line import walk

from deploy_kit import checkpoint
from deploy_kit.base.errors import CheckpointError, InputError
from deploy_kit.checkpoint.architecture import body, structure
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts
from deploy_kit.checkpoint.network import map_sizes, paper_table
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.checkpoint.network.equations import Equations
from deploy_kit.records.densenet import DenseBlock

WIDTHS, CLASSES = (12, 8, 6, 5), 3


def unet(*, norm: bool = True, root: str = "") -> dict[str, Tensor]:
    """Give the tensors of a Unet on a small DenseNet of three blocks, drawn at random."""
    spec = small()
    tensors = {f"encoder.{name}": one for name, one in trained(spec).state_dict().items() if "classifier" not in name}
    generator = torch.Generator().manual_seed(3)
    skips = (*spec.skips, spec.stem_channels, 0)
    read = spec.width
    for at, (out, skip) in enumerate(zip(WIDTHS, skips, strict=True)):
        for part, width in ((1, read + skip), (2, out)):
            home = f"decoder.blocks.{at}.conv{part}"
            tensors[f"{home}.0.weight"] = torch.randn(out, width, 3, 3, generator=generator) / (9 * width) ** 0.5
            if norm:
                values = {"weight": 0.5, "bias": -0.2, "running_mean": -0.1, "running_var": 0.5}
                tensors |= {
                    f"{home}.1.{key}": torch.rand(out, generator=generator) + low for key, low in values.items()
                }
            else:
                tensors[f"{home}.0.bias"] = torch.randn(out, generator=generator)
        read = out
    tensors["segmentation_head.0.weight"] = torch.randn(CLASSES, read, 3, 3, generator=generator)
    tensors["segmentation_head.0.bias"] = torch.randn(CLASSES, generator=generator)
    return {root + name: one for name, one in tensors.items()}


def fpn(*, cat: bool = False) -> dict[str, Tensor]:
    """Give the tensors of an FPN on a small DenseNet of four blocks, drawn at random."""
    spec = small(blocks=(*small().blocks, DenseBlock(layers=2, growth=4, bottleneck=12)), transitions=(9, 10, 9))
    tensors = {f"encoder.{name}": one for name, one in trained(spec).state_dict().items() if "classifier" not in name}
    generator = torch.Generator().manual_seed(4)
    wide, branch = 12, 32

    def conv(name: str, out: int, read: int, kernel: int, *, bias: bool) -> None:
        tensors[f"{name}.weight"] = torch.randn(out, read, kernel, kernel, generator=generator) / read**0.5 / kernel
        if bias:
            tensors[f"{name}.bias"] = torch.randn(out, generator=generator)

    for name, read in zip(
        ("p5", "p4.skip_conv", "p3.skip_conv", "p2.skip_conv"), (spec.width, *spec.skips), strict=True
    ):
        conv(f"decoder.{name}", wide, read, 1, bias=True)
    for at, n in enumerate((3, 2, 1, 1)):
        for step in range(n):
            home = f"decoder.seg_blocks.{at}.block.{step}.block"
            conv(f"{home}.0", branch, branch if step else wide, 3, bias=False)
            tensors |= {f"{home}.1.{key}": torch.randn(branch, generator=generator) for key in ("weight", "bias")}
    conv("segmentation_head.0", CLASSES, 4 * branch if cat else branch, 1, bias=True)
    return tensors


def parse(tensors: dict[str, Tensor], ignore: tuple[str, ...] = (), **facts: Any) -> structure.ParsedStructure:
    stated = StatedFacts(facts=ArchitectureFacts(**facts), ignore=ignore)
    return structure.parse_structure(Contents(kind="torch zip", tensors=tensors), "net.pth", stated)


def test_interpolation_is_asked_for_and_read_from_the_config_beside_it(tmp_path: Path) -> None:
    torch.save(unet(), tmp_path / "net.pth")
    config: dict[str, Any] = {"encoder_name": "densenet121", "decoder_channels": WIDTHS, "activation": "sigmoid"}
    config |= {"encoder_depth": 4}

    with pytest.raises(CheckpointError, match="cannot say: upsampling") as asked:
        checkpoint.read_checkpoint(tmp_path / "net.pth")
    assert "--upsampling nearest" in asked.value.hint

    for stated, expected in (({"decoder_interpolation": "bilinear"}, "bilinear"), ({}, "nearest")):
        (tmp_path / "config.json").write_text(json.dumps(config | stated))
        read = checkpoint.read_checkpoint(tmp_path / "net.pth")
        assert read.spec.decoder is not None
        assert read.spec.decoder.upsampling == expected
        assert dict(read.spec.sources)["upsampling"] == "'config.json' beside it"
        assert any("ends with sigmoid: left out" in remark for remark in read.remarks)

    (tmp_path / "config.json").write_text(json.dumps(config | {"decoder_interpolation": "bicubic"}))
    with pytest.raises(CheckpointError, match="says decoder_interpolation = 'bicubic': nearest and bilinear"):
        checkpoint.read_checkpoint(tmp_path / "net.pth")


def test_config_of_a_pyramid_says_its_scale(tmp_path: Path) -> None:
    torch.save(fpn(), tmp_path / "net.pth")
    config = {"encoder_name": "densenet121", "encoder_depth": 5, "upsampling": 2, "decoder_interpolation": "bilinear"}
    (tmp_path / "config.json").write_text(json.dumps(config))

    decoder = checkpoint.read_checkpoint(tmp_path / "net.pth").spec.decoder

    assert decoder is not None
    assert (decoder.upsampling, decoder.map_scale) == ("bilinear", 2)


@pytest.mark.parametrize("root", ["", "model.", "module.net."])
@pytest.mark.parametrize("norm", [True, False])
def test_module_and_equations_agree_and_interpolations_differ(norm: bool, root: str) -> None:
    x = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    answers = {}
    for mode in ("nearest", "bilinear"):
        parsed = parse(unet(norm=norm, root=root), upsampling=mode)
        model = DenseNet(parsed.spec)
        model.load_state_dict(parsed.tensors)
        equations = Equations(parsed.spec, parsed.names, parsed.originals, channels_last=False)
        answers[mode] = equations.logits(x)[0]
        with torch.no_grad():
            found = model.eval().double()(x)
        assert found.shape == (1, CLASSES, 32, 48)
        assert (found - answers[mode]).abs().max() <= 1e-12 * found.abs().max()
    assert (answers["nearest"] - answers["bilinear"]).abs().max() > 1e-2 * answers["nearest"].abs().max()


@pytest.mark.parametrize("cat", [False, True])
def test_pyramid_and_its_equations_agree_and_its_scale_is_asked_for(cat: bool) -> None:
    x = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    with pytest.raises(CheckpointError, match="cannot say: upsampling, map scale") as asked:
        parse(fpn(cat=cat))
    parsed = parse(fpn(cat=cat), upsampling="nearest", map_scale=4)
    model = DenseNet(parsed.spec)
    model.load_state_dict(parsed.tensors)
    with torch.no_grad():
        found = model.eval().double()(x)

    assert "--map-scale 4" in asked.value.hint
    assert parsed.spec.title.startswith("FPN on DenseNet-BC")
    assert found.shape == (1, CLASSES, 64, 96)
    equations = Equations(parsed.spec, parsed.names, parsed.originals, channels_last=False)
    assert (found - equations.logits(x)[0]).abs().max() <= 1e-12 * found.abs().max()


def test_pyramid_of_a_size_that_does_not_halve_is_refused_and_the_one_that_is_named_fits() -> None:
    spec = parse(fpn(), upsampling="nearest", map_scale=4).spec

    with pytest.raises(InputError, match="80×96 px is not halved evenly") as refused:
        map_sizes.maps(spec, (80, 96))

    assert refused.value.hint.endswith("--input 64x96")
    assert map_sizes.maps(spec, (64, 96))[-1].sides == (16, 24)


def test_nan_in_a_group_norm_is_refused_by_its_name() -> None:
    name = "decoder.seg_blocks.1.block.0.block.1.weight"

    with pytest.raises(CheckpointError, match=f"{name} holds NaN"):
        parse(fpn() | {name: torch.full((32,), float("nan"))}, upsampling="nearest", map_scale=4)


def test_probe_finds_the_interpolation(tmp_path: Path) -> None:
    tensors, x = unet(), torch.randn(1, 3, 32, 32)
    parsed = parse(tensors, upsampling="bilinear")
    equations = Equations(parsed.spec, parsed.names, parsed.originals, channels_last=False)
    torch.save(tensors, tmp_path / "net.pth")
    np.savez(tmp_path / "io.npz", input=x.numpy(), logits=equations.logits(x)[0].numpy())

    read = checkpoint.read_checkpoint(tmp_path / "net.pth", StatedFacts(probe=str(tmp_path / "io.npz")))

    assert read.spec.decoder is not None
    assert read.spec.decoder.upsampling == "bilinear"


def test_second_output_is_named_and_can_be_left_out() -> None:
    extra = {"classification_head.3.weight": torch.zeros(4, 18), "classification_head.3.bias": torch.zeros(4)}

    with pytest.raises(CheckpointError, match="no place for: classification_head") as refused:
        parse(unet() | extra, upsampling="nearest")

    assert refused.value.hint.endswith("--ignore classification_head")
    assert parse(unet() | extra, ("classification_head",), upsampling="nearest").spec.title.startswith("U-Net on")


def test_encoder_without_a_layer_is_called_by_what_is_missing() -> None:
    tensors = {name: one for name, one in unet().items() if "denseblock2.denselayer2" not in name}

    with pytest.raises(CheckpointError, match="denselayer2 missing"):
        parse(tensors, upsampling="nearest")


@pytest.mark.slow
def test_state_dict_passes_through_all_steps(tmp_path: Path) -> None:
    torch.save(unet(), tmp_path / "net.pth")

    walked = walk(tmp_path / "net.pth", tmp_path, sides=(32, 32), upsampling="nearest")

    for (precision, _), report in walked.parity.items():
        assert report.task is not None
        assert report.task.task == "segment"
        assert report.sqnr_db > (20 if precision == "int8" else 90)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"decoder.center.0.0.weight": torch.zeros(18, 18, 3, 3)}, "a decoder: of segmentation networks"),
        (
            {"decoder.blocks.0.attention1.attention.cSE.1.weight": torch.zeros(2, 39, 1, 1)},
            "Unet with scse attention",
        ),
        ({"encoder.other.weight": torch.zeros(4, 4, 3, 3)}, "a decoder: of segmentation networks"),
    ],
)
def test_other_decoder_is_refused_by_its_name_with_the_line_that_exports_it(
    extra: dict[str, Tensor], said: str
) -> None:
    with pytest.raises(CheckpointError, match=said) as refused:
        parse(unet() | extra, upsampling="nearest")

    assert refused.value.hint.endswith(body.EXPORT)


@pytest.mark.parametrize(
    ("tensors", "facts"),
    [(unet(), {}), (fpn(), {"map_scale": 4}), (fpn(cat=True), {"map_scale": 4})],
    ids=["unet", "fpn", "fpn, cat"],
)
def test_multiplications_are_those_that_hooks_count(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    parsed, counted = parse(tensors, upsampling="nearest", **facts), [0]
    model = DenseNet(parsed.spec)
    for part in model.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda module, _, output: counted.__setitem__(
                    0, counted[0] + module.weight.numel() * output.shape[2] * output.shape[3]
                )
            )
    model.eval()(torch.zeros(1, 3, 64, 96))

    assert paper_table.macs(parsed.spec, (64, 96)) == counted[0]
    assert paper_table.rows(parsed.spec, (64, 96))
