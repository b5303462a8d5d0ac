"""Make checkpoints with torchvision, timm, MONAI and smp, each with an input and the logits of its own forward pass.

    python -m tests.checkpoint.implementations FOLDER

Runs in a process of its own: torchvision's compiled part does not load beside a CPU build of torch, so the two
operators that its Python part registers kernels for are declared here instead; no DenseNet calls them.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

HOME = Path(sys.prefix) / "implementations"


def lively(model: nn.Module, *shape: int) -> nn.Module:
    """Draw the weights of BNs and set their statistics to those of real activations."""
    for part in model.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.2)
            part.reset_running_stats()
            part.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, *shape))
    return model.eval()


def makers() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """List the networks: name → how to build one, and the shape of one input."""
    import segmentation_models_pytorch as smp
    import timm
    import torchvision
    from monai.networks.nets.densenet import DenseNet as MonaiNet
    from monai.networks.nets.densenet import DenseNet121 as Monai121
    from timm.layers import BlurPool2d
    from timm.models.densenet import DenseNet as TimmNet

    own = torchvision.models
    small: dict[str, Any] = {"growth_rate": 8, "block_config": (2, 3, 2), "num_init_features": 16}
    deep = {"growth_rate": 8, "block_config": (2, 3, 2), "stem_type": "deep", "num_classes": 7}

    def monai(axes: int) -> nn.Module:
        rest = {"init_features": 16, "growth_rate": 8, "block_config": (2, 2, 2)}
        return MonaiNet(spatial_dims=axes, in_channels=2, out_channels=3, **rest)

    def unet(depth: int, **options: Any) -> Callable[[], nn.Module]:
        widths = tuple(48 >> at for at in range(options.get("encoder_depth", 5)))
        fixed = {"encoder_weights": None, "decoder_channels": widths, "classes": 3}
        return lambda: smp.Unet(f"densenet{depth}", **fixed, **options)

    def fpn(depth: int, **options: Any) -> Callable[[], nn.Module]:
        fixed = {"encoder_weights": None, "decoder_pyramid_channels": 40, "decoder_segmentation_channels": 32}
        return lambda: smp.FPN(f"densenet{depth}", **fixed, classes=3, **options)

    return {
        "smp_fpn_121": (fpn(121), (3, 64, 96)),
        "smp_fpn_121_depth_4": (fpn(121, encoder_depth=4, upsampling=2), (3, 48, 64)),
        "smp_fpn_161": (fpn(161, decoder_merge_policy="cat", upsampling=2), (3, 64, 64)),
        "smp_fpn_169": (fpn(169, decoder_interpolation="bilinear"), (3, 64, 64)),
        "smp_unet_161": (unet(161, in_channels=1), (1, 64, 64)),
        "smp_unet_169": (unet(169, decoder_interpolation="bilinear"), (3, 64, 96)),
        "smp_unet_201": (unet(201, decoder_use_norm=False), (3, 64, 64)),
        "smp_unet_121_depth_4": (unet(121, encoder_depth=4), (3, 48, 64)),
        "smp_unet_121_odd": (unet(121), (3, 75, 90)),
        "torchvision_small": (lambda: own.DenseNet(**small, num_classes=9), (3, 64, 64)),
        "torchvision_121": (lambda: own.densenet121(weights=None), (3, 64, 64)),
        "torchvision_161": (lambda: own.densenet161(weights=None), (3, 32, 32)),
        "torchvision_169": (lambda: own.densenet169(weights=None), (3, 32, 32)),
        "torchvision_201": (lambda: own.densenet201(weights=None), (3, 32, 32)),
        "timm_121": (lambda: timm.create_model("densenet121", num_classes=11), (3, 64, 64)),
        "timm_deep_densenet264d": (lambda: TimmNet(**deep), (3, 64, 64)),
        "timm_blur": (lambda: TimmNet(**deep, aa_layer=BlurPool2d), (3, 64, 64)),
        "monai_1d": (lambda: monai(1), (2, 128)),
        "monai_2d": (lambda: monai(2), (2, 64, 64)),
        "monai_3d": (lambda: monai(3), (2, 32, 32, 32)),
        "monai_121": (lambda: Monai121(spatial_dims=2, in_channels=1, out_channels=4), (1, 64, 64)),
    }


def prepare() -> torch.library.Library:
    """Let the implementations be imported; what is returned must live as long as they are used.

    They lie beside the environment, and torchvision without its compiled part, whose operators it names on import.
    """
    sys.path.append(str(HOME))
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library


def main(folder: Path) -> None:
    _library = prepare()
    for number, (name, (make, shape)) in enumerate(makers().items()):
        torch.manual_seed(number)
        model, x = lively(make(), *shape), torch.randn(2, *shape)
        torch.save(model.state_dict(), folder / f"{name}.pth")
        with torch.no_grad():  # in double precision: float32 rounds otherwise on every processor
            logits = model.double()(x.double())
        torch.save({"input": x, "logits": logits}, folder / f"{name}.io")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
