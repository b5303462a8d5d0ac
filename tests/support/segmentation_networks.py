"""FC-DenseNet written out from its paper, with what its ports do otherwise and how they name their tensors.

Source: Jégou, Drozdzal, Vazquez, Romero, Bengio, "The One Hundred Layers Tiramisu: Fully Convolutional DenseNets for
Semantic Segmentation", CVPR Workshops 2017 (arXiv 1611.09326), section 3 and tables 1 and 2.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Names of pytorch_tiramisu → those of other ports, pattern by pattern.
PORTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "pytorch_tiramisu": (),
    "pytorch-densenet-tiramisu": (
        (r"^firstconv", "features"),
        (r"^denseBlocksDown\.(\d+)\.layers\.(\d+)", r"down_dense.block_\1.layer_\2"),
        (r"^transDownBlocks\.(\d+)", r"down_trans.trans_\1"),
        (r"^bottleneck\.bottleneck\.layers\.(\d+)", r"middle.layer_\1"),
        (r"^transUpBlocks\.(\d+)\.convTrans", r"up_trans.trans_\1.upconv"),
        (r"^denseBlocksUp\.(\d+)\.layers\.(\d+)", r"up_dense.block_\1.layer_\2"),
        (r"^finalConv", "final"),
    ),
    "a list of each": (
        (r"^firstconv", "stem"),
        (r"^denseBlocksDown\.(\d+)", r"down.\1"),
        (r"^transDownBlocks\.(\d+)\.norm", r"shrink.\1.0.0"),
        (r"^transDownBlocks\.(\d+)\.conv", r"shrink.\1.0.2"),
        (r"^bottleneck\.bottleneck", "middle"),
        (r"^transUpBlocks\.(\d+)\.convTrans", r"grow.\1"),
        (r"^denseBlocksUp\.(\d+)", r"up.\1"),
        (r"(layers\.\d+)\.norm", r"\1.0"),
        (r"(layers\.\d+)\.conv", r"\1.2"),
        (r"^finalConv", "head"),
    ),
}


class _Layer(nn.Sequential):
    def __init__(self, read: int, out: int, kernel: int, *, bias: bool) -> None:
        super().__init__()
        self.add_module("norm", nn.BatchNorm2d(read))
        self.add_module("relu", nn.ReLU())
        self.add_module("conv", nn.Conv2d(read, out, kernel, padding=kernel // 2, bias=bias))


class _Block(nn.Module):
    """Layers of which each reads all maps before it; gives all of them, or the new ones alone."""

    def __init__(self, read: int, n: int, growth: int, *, keeps: bool, bias: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(read + at * growth, growth, 3, bias=bias) for at in range(n))
        self.keeps, self.out = keeps, n * growth + read * keeps

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, 1)))
        return torch.cat(maps if self.keeps else maps[1:], 1)


class FCDenseNet(nn.Module):
    """FC-DenseNet under pytorch_tiramisu's names; the rest of the arguments is what ports do otherwise.

    Args:
        classes: Classes.
        first: Channels of the first convolution.
        down: Layers of each block of the way down.
        middle: Layers of the bottleneck.
        growth: Growth rate k.
        channels: Channels of the input.
        kernel: Kernel of the transposed convolutions.
        late: Whether those of kernel 3 have padding 1 and output padding 1, in place of a center crop.
        skip_first: Whether the encoder's maps come first in a joint.
        middle_all: Whether the bottleneck hands on all of its maps.
        last_new: Whether the last block hands on its new maps alone.
        bias: Whether convolutions have biases.
    """

    def __init__(
        self, classes: int, first: int, down: tuple[int, ...], middle: int, growth: int, *, channels: int = 3,
        kernel: int = 3, late: bool = False, skip_first: bool = False, middle_all: bool = False, last_new: bool = False,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.skip_first = skip_first
        self.firstconv = nn.Conv2d(channels, first, 3, padding=1, bias=bias)
        self.denseBlocksDown, self.transDownBlocks = nn.ModuleList(), nn.ModuleList()
        width, skips = first, []
        for n in down:
            self.denseBlocksDown.append(_Block(width, n, growth, keeps=True, bias=bias))
            width += n * growth
            skips.append(width)
            shrink = _Layer(width, width, 1, bias=bias)
            shrink.add_module("pool", nn.MaxPool2d(2))
            self.transDownBlocks.append(shrink)
        self.bottleneck = nn.Module()
        self.bottleneck.bottleneck = _Block(width, middle, growth, keeps=middle_all, bias=bias)
        width = self.bottleneck.bottleneck.out
        self.transUpBlocks, self.denseBlocksUp = nn.ModuleList(), nn.ModuleList()
        padding = {"padding": 1, "output_padding": 1} if late else {"padding": (kernel - 2) // 2}
        for at, (n, skip) in enumerate(zip(reversed(down), reversed(skips), strict=True), start=1):
            enlarge = nn.Module()
            enlarge.convTrans = nn.ConvTranspose2d(width, width, kernel, stride=2, **padding)
            self.transUpBlocks.append(enlarge)
            keeps = at == len(down) and not last_new
            self.denseBlocksUp.append(_Block(width + skip, n, growth, keeps=keeps, bias=bias))
            width = self.denseBlocksUp[-1].out
        self.finalConv = nn.Conv2d(width, classes, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) → (N, classes, H, W) logits."""
        x, skips = self.firstconv(x), []
        for block, shrink in zip(self.denseBlocksDown, self.transDownBlocks, strict=True):
            skips.append(block(x))
            x = shrink(skips[-1])
        x = self.bottleneck.bottleneck(x)
        for enlarge, block in zip(self.transUpBlocks, self.denseBlocksUp, strict=True):
            skip, x = skips.pop(), enlarge.convTrans(x)
            top, left = ((a - b) // 2 for a, b in zip(x.shape[2:], skip.shape[2:], strict=True))
            x = x[:, :, top : top + skip.shape[2], left : left + skip.shape[3]]
            x = block(torch.cat([skip, x] if self.skip_first else [x, skip], 1))
        return self.finalConv(x)


def settled(model: nn.Module, seed: int = 0, side: int = 32, channels: int = 3) -> Any:
    """Draw lively BNs, give them the statistics of real activations, and return the network in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(part.bias, 0, 0.3, generator=generator)
            part.reset_running_stats()
            part.momentum = None
    coarse = torch.randn(4, channels, side // 4, side // 4, generator=generator)
    with torch.no_grad():
        model.train()(functional.interpolate(coarse, size=(side, side), mode="bilinear"))
    return model.eval().requires_grad_(False)


def made(seed: int = 0, **options: Any) -> FCDenseNet:
    """Make a small FC-DenseNet with settled BNs: two levels, 2 layers a block, k = 4; `options` are its arguments."""
    torch.manual_seed(seed)
    usual = {"classes": 5, "first": 6, "down": (2, 3), "middle": 2, "growth": 4, "channels": 3}
    network: FCDenseNet = settled(FCDenseNet(**{**usual, **options}), seed, channels=options.get("channels", 3))
    return network


def state(model: nn.Module, port: str = "pytorch_tiramisu") -> dict[str, Tensor]:
    """Return a network's state dict under the names of a port."""
    renamed = {}
    for key, tensor in model.state_dict().items():
        for pattern, name in PORTS[port]:
            key = re.sub(pattern, name, key)
        renamed[key] = tensor
    return renamed
