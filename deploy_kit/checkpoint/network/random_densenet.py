"""The paper's networks with random weights, as checkpoints: they cost what trained ones do, and answer noise."""

import json
import math
from pathlib import Path

from deploy_kit.base.errors import UnknownNameError, nearest
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv

# Channels of the stem, growth, layers of the blocks: Huang et al., CVPR 2017, table 1; 161 from its repository.
_IMAGENET = {
    "densenet121": (64, 32, (6, 12, 24, 16)),
    "densenet161": (96, 48, (6, 12, 36, 24)),
    "densenet169": (64, 32, (6, 12, 32, 32)),
    "densenet201": (64, 32, (6, 12, 48, 32)),
    "densenet264": (64, 32, (6, 12, 64, 48)),
}
# Growth of DenseNet-BC-100 on CIFAR: (100 - 4) / 6 layers a block, a stem of 2 k channels (section 3).
_CIFAR = {"densenet_bc100_k12": 12, "densenet_bc100_k24": 24, "densenet_bc100_k40": 40}
NAMES = (*_IMAGENET, *_CIFAR)
_IMAGES, _SIDE, _CIFAR_SIDE = 8, 224, 32
VERSION = "1"


def spec(name: str) -> DenseNetSpec:
    """Return an architecture by name, with 1,000 classes (on 224 px), or of CIFAR with 10 (on 32 px).

    Raises:
        UnknownNameError: No architecture has this name.
    """
    if name in _IMAGENET:
        stem, growth, layers = _IMAGENET[name]
        first = StemConv(channels=stem, kernel=(7, 7), stride=(2, 2))
        return _spec(first, growth, layers, classes=1000)
    if name in _CIFAR:
        growth = _CIFAR[name]
        first = StemConv(channels=2 * growth, kernel=(3, 3), stride=(1, 1), norm=False, relu=False)
        return _spec(first, growth, (16, 16, 16), classes=10)
    raise UnknownNameError(f"no architecture is called '{name}'", hint=nearest(name, NAMES))


def _spec(stem: StemConv, growth: int, layers: tuple[int, ...], *, classes: int) -> DenseNetSpec:
    width, transitions = stem.channels, []
    for n in layers[:-1]:
        width = (width + n * growth) // 2  # compression by a half
        transitions.append(width)
    return DenseNetSpec(
        in_channels=3,
        stem=(stem,),
        stem_pool="max" if stem.norm else "none",
        blocks=tuple(DenseBlock(layers=n, growth=growth, bottleneck=4 * growth) for n in layers),
        transitions=tuple(transitions),
        heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=classes),)),),
    )


def write(name: str, path: Path, seed: int = 0) -> None:
    """Write an architecture with seeded weights as safetensors, its preprocessing with it.

    Convolutions are drawn as He et al. 2015 has them; BN statistics are those of a pass over smooth seeded images, so
    that activations keep their scale from layer to layer, as in a trained network.

    Raises:
        UnknownNameError: No architecture has this name.
    """
    import torch
    from safetensors.torch import save

    from deploy_kit.checkpoint.network.densenet_module import DenseNet

    built = spec(name)
    side = _SIDE if built.stem_pool == "max" else _CIFAR_SIDE
    preprocess = Preprocess(
        height=side, width=side, color="rgb", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), resize=side
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = DenseNet(built)
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d):
                fan_in = math.prod(module.weight.shape[1:])
                module.weight.normal_(0.0, math.sqrt(2 / fan_in))
            elif isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the mean over all passes, which is the one
        coarse = torch.randn(_IMAGES, 3, side // 16, side // 16)
        model.train()(torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear"))
    stated = {"stem_stride": built.stem[0].stride[0], "stem_pool": built.stem_pool, "eps": built.eps}
    metadata = {"deploykit.densenet": json.dumps(stated), "deploykit.preprocess": json.dumps(vars(preprocess))}
    path.write_bytes(_ordered(save({key: tensor.contiguous() for key, tensor in model.state_dict().items()}, metadata)))


def _ordered(data: bytes) -> bytes:
    """Put the metadata of a safetensors file in order: its library writes them in another one each time."""
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # weights begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[8 + n :]
