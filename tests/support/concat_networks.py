"""Networks that concatenate features as DenseNet does, a few channels wide, each after its paper.

VoVNet, RDNet, DPN, CSPDenseNet, HarDNet, PeleeNet, ShuffleNet-v2, FC-DenseNet, BlurDenseNet, DenseNet in 1-D and 3-D.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 6


class Conv(nn.Sequential):
    """Convolution, BN and an activation."""

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, act: nn.Module | None = None, **options: Any) -> None:
        options.setdefault("padding", kernel // 2)
        layers = [nn.Conv2d(n_in, n_out, kernel, bias=False, **options), nn.BatchNorm2d(n_out)]
        super().__init__(*layers, nn.ReLU() if act is None else act)


class Logits(nn.Sequential):
    """Mean over all pixels, linear."""

    def __init__(self, n_in: int, rank: int = 2) -> None:
        pool = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}[rank](1)
        super().__init__(pool, nn.Flatten(), nn.Linear(n_in, CLASSES))


class Dense(nn.Module):
    """Layers that each read all before them; `last` gives what the block hands on: everything, or the new maps."""

    def __init__(self, n_in: int, n_layers: int, growth: int, layer: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(n_in + i * growth, growth) for i in range(n_layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return x


def preact(n_in: int, growth: int, rank: int = 2) -> nn.Module:
    """DenseNet's layer: BN, ReLU, 1×1, BN, ReLU, 3×3."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[rank]
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[rank]
    return nn.Sequential(
        norm(n_in), nn.ReLU(), conv(n_in, 2 * growth, 1, bias=False),
        norm(2 * growth), nn.ReLU(), conv(2 * growth, growth, 3, padding=1, bias=False),
    )  # fmt: skip


def densenet_nd(rank: int) -> nn.Module:
    """DenseNet on signals or volumes: one channel, strided stem with a pool, a transition."""
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[rank]
    norm = {1: nn.BatchNorm1d, 3: nn.BatchNorm3d}[rank]
    pools = {1: (nn.MaxPool1d, nn.AvgPool1d), 3: (nn.MaxPool3d, nn.AvgPool3d)}[rank]

    def layer(n_in: int, growth: int) -> nn.Module:
        return preact(n_in, growth, rank)

    return nn.Sequential(
        conv(1, 8, 7, stride=2, padding=3, bias=False), norm(8), nn.ReLU(), pools[0](3, 2, 1), Dense(8, 2, 4, layer),
        norm(16), nn.ReLU(), conv(16, 8, 1, bias=False), pools[1](2, 2), Dense(8, 2, 4, layer),
        norm(16), nn.ReLU(), Logits(16, rank),
    )  # fmt: skip


class _Blur(nn.Module):
    """Zhang's anti-aliased pool: reflected border, binomial depthwise filter, stride 2."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.n = n
        taps = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (taps[:, None] * taps / 16).repeat(n, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(functional.pad(x, (1, 1, 1, 1), "reflect"), self.kernel, stride=2, groups=self.n)


def blurnet() -> nn.Module:
    """DenseNet whose pools are anti-aliased (Zhang, 2019)."""
    return nn.Sequential(
        Conv(3, 8, 3, stride=2), nn.MaxPool2d(2, 1), _Blur(8), Dense(8, 2, 4, preact),
        nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 8, 1), _Blur(8), Dense(8, 2, 4, preact),
        nn.BatchNorm2d(16), nn.ReLU(), Logits(16),
    )  # fmt: skip


class _Gate(nn.Module):
    """Squeeze and excitation by one 1×1 convolution and a hard sigmoid, as ese_vovnet and RDNet use it."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.fc, self.gate = nn.Conv2d(n, n, 1), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc(x.mean((2, 3), keepdim=True)))


class _OneShot(nn.Module):
    """VoVNet-v2's block: all maps concatenated once at the end, gated, added to what came in."""

    def __init__(self, n_in: int, mid: int, n_out: int, n_layers: int, *, gated: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Conv(n_in if not i else mid, mid) for i in range(n_layers))
        self.reduce = Conv(n_in + n_layers * mid, n_out, 1)
        self.gate = _Gate(n_out) if gated else nn.Identity()
        self.adds = gated and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self.layers:
            maps.append(layer(maps[-1]))
        y = self.gate(self.reduce(torch.cat(maps, 1)))
        return y + x if self.adds else y


def vovnet(*, gated: bool = False) -> nn.Module:
    """VoVNet (Lee et al., 2019); with gates and additions ese_vovnet (Lee and Park, 2020)."""
    return nn.Sequential(
        Conv(3, 8, stride=2), Conv(8, 8), nn.MaxPool2d(3, 2, ceil_mode=True), _OneShot(8, 6, 12, 3, gated=gated),
        nn.MaxPool2d(3, 2, ceil_mode=True), _OneShot(12, 6, 12, 3, gated=gated), Logits(12),
    )  # fmt: skip


class _ChannelNorm(nn.LayerNorm):
    """LayerNorm over channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class _Scaled(nn.Module):
    def __init__(self, inner: nn.Module, n: int) -> None:
        super().__init__()
        self.inner, self.gamma = inner, nn.Parameter(torch.rand(n) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * self.gamma.reshape(1, -1, 1, 1)


def _rdnet_layer(n_in: int, growth: int) -> nn.Module:
    hidden = 3 * growth
    return _Scaled(
        nn.Sequential(
            nn.Conv2d(n_in, n_in, 7, padding=3, groups=n_in), _ChannelNorm(n_in), nn.Conv2d(n_in, hidden, 1), nn.GELU(),
            nn.Conv2d(hidden, growth, 1), _Gate(growth),
        ),
        growth,
    )  # fmt: skip


def rdnet() -> nn.Module:
    """RDNet (Kim et al., 2024): patches, depthwise 7×7, LayerNorm, GELU, gates and layer scale."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 4, 4), _ChannelNorm(8), Dense(8, 2, 4, _rdnet_layer), _ChannelNorm(16), nn.Conv2d(16, 12, 2, 2),
        Dense(12, 2, 4, _rdnet_layer), _ChannelNorm(20), Logits(20),
    )  # fmt: skip


class _DualPath(nn.Module):
    """A part of the channels is added, the rest concatenated; the first block projects."""

    def __init__(self, n_in: int, width: int, growth: int, *, first: bool) -> None:
        super().__init__()
        self.width, self.growth = width, growth
        self.project = nn.Sequential(*_normed(n_in, width + 2 * growth, 1)) if first else None
        self.branch = nn.Sequential(
            *_normed(n_in, 8, 1), *_normed(8, 8, 3, padding=1, groups=4), *_normed(8, width + growth, 1)
        )

    def forward(self, x: Tensor | tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        whole = torch.cat(x, 1) if isinstance(x, tuple) else x
        if self.project is not None:
            shortcut = self.project(whole)
            kept, dense = shortcut[:, : self.width], shortcut[:, self.width :]
        else:
            kept, dense = x
        y = self.branch(whole)
        return kept + y[:, : self.width], torch.cat([dense, y[:, self.width :]], 1)


def _normed(n_in: int, n_out: int, kernel: int, **options: Any) -> list[nn.Module]:
    return [nn.BatchNorm2d(n_in), nn.ReLU(), nn.Conv2d(n_in, n_out, kernel, bias=False, **options)]


class _Join(nn.Module):
    def forward(self, x: Iterable[Tensor]) -> Tensor:
        return torch.cat(tuple(x), 1)


def dpn() -> nn.Module:
    """Dual Path Network (Chen et al., 2017): residual and dense paths split by channel slices."""
    return nn.Sequential(
        Conv(3, 8, stride=2), nn.MaxPool2d(3, 2, 1), _DualPath(8, 8, 4, first=True), _DualPath(20, 8, 4, first=False),
        _DualPath(24, 8, 4, first=False), _Join(), nn.BatchNorm2d(28), nn.ReLU(), Logits(28),
    )  # fmt: skip


class _CrossStage(nn.Module):
    """CSPDenseNet: half the channels go through the dense block, both halves are concatenated."""

    def __init__(self, n_in: int, n_layers: int, growth: int, n_out: int, act: Callable[[], nn.Module]) -> None:
        super().__init__()
        half = n_in // 2
        self.layers = nn.ModuleList(Conv(half + i * growth, growth, act=act()) for i in range(n_layers))
        self.reduce = Conv(half + n_layers * growth, half, 1, act=act())
        self.join = Conv(2 * half, n_out, 1, act=act())

    def forward(self, x: Tensor) -> Tensor:
        past, y = x.chunk(2, 1)
        for layer in self.layers:
            y = torch.cat([y, layer(y)], 1)
        return self.join(torch.cat([past, self.reduce(y)], 1))


def cspdensenet(act: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.1)) -> nn.Module:
    """CSPDenseNet (Wang et al., 2020)."""
    return nn.Sequential(
        Conv(3, 8, stride=2, act=act()), _CrossStage(8, 2, 4, 12, act), Conv(12, 12, stride=2, act=act()),
        _CrossStage(12, 2, 4, 12, act), Logits(12),
    )  # fmt: skip


class _Harmonic(nn.Module):
    """HarDNet's block: layer l reads layers l − 2ⁿ where 2ⁿ divides l; the odd layers and the last are handed on."""

    def __init__(self, n_in: int, growth: int, n_layers: int) -> None:
        super().__init__()
        widths, self.links, layers = [n_in], [], []
        for at in range(1, n_layers + 1):
            links = [at - 2**n for n in range(10) if at % 2**n == 0 and at >= 2**n]
            width = int(growth * 1.6 ** (len(links) - 1) + 1) // 2 * 2
            layers.append(Conv(sum(widths[link] for link in links), width, act=nn.ReLU6()))
            self.links.append(links)
            widths.append(width)
        self.layers, self.kept = nn.ModuleList(layers), [i for i in range(1, n_layers + 1) if i % 2 or i == n_layers]
        self.n_out = sum(widths[at] for at in self.kept)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer, links in zip(self.layers, self.links, strict=True):
            maps.append(layer(torch.cat([maps[link] for link in links], 1) if len(links) > 1 else maps[links[0]]))
        return torch.cat([maps[at] for at in self.kept], 1)


def hardnet() -> nn.Module:
    """HarDNet (Chao et al., 2019)."""
    first, second = _Harmonic(8, 4, 4), _Harmonic(12, 4, 4)
    return nn.Sequential(
        Conv(3, 8, stride=2, act=nn.ReLU6()), Conv(8, 8, act=nn.ReLU6()), nn.MaxPool2d(3, 2, 1), first,
        Conv(first.n_out, 12, 1, act=nn.ReLU6()), nn.MaxPool2d(2, 2), second,
        Conv(second.n_out, 16, 1, act=nn.ReLU6()), Logits(16),
    )  # fmt: skip


class _TwoWays(nn.Module):
    """PeleeNet's dense layer: one 3×3 branch and one of two, concatenated to the input."""

    def __init__(self, n_in: int, growth: int) -> None:
        super().__init__()
        half = growth // 2
        self.one = nn.Sequential(Conv(n_in, growth, 1), Conv(growth, half))
        self.two = nn.Sequential(Conv(n_in, growth, 1), Conv(growth, half), Conv(half, half))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.one(x), self.two(x)], 1)


class _Stem(nn.Module):
    """PeleeNet's stem: a strided branch and a pool, concatenated."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.join = Conv(3, n, stride=2), Conv(2 * n, n, 1)
        self.conv = nn.Sequential(Conv(n, n // 2, 1), Conv(n // 2, n, stride=2))
        self.pool = nn.MaxPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.join(torch.cat([self.conv(x), self.pool(x)], 1))


def peleenet() -> nn.Module:
    """PeleeNet (Wang et al., 2018)."""
    return nn.Sequential(
        _Stem(8), _TwoWays(8, 4), _TwoWays(12, 4), Conv(16, 16, 1), nn.AvgPool2d(2, 2), _TwoWays(16, 4),
        Conv(20, 20, 1), Logits(20),
    )  # fmt: skip


class _Shuffled(nn.Module):
    """ShuffleNet-v2's unit: half the channels pass, the other half are computed; both shuffled."""

    def __init__(self, n: int) -> None:
        super().__init__()
        half = n // 2
        depthwise = [nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False), nn.BatchNorm2d(half)]
        self.branch = nn.Sequential(Conv(half, half, 1), *depthwise, Conv(half, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        past, y = x.chunk(2, 1)
        y = torch.cat([past, self.branch(y)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)


def shufflenet() -> nn.Module:
    """ShuffleNet-v2 (Ma et al., 2018)."""
    return nn.Sequential(
        Conv(3, 8, stride=2), nn.MaxPool2d(3, 2, 1), _Shuffled(8), _Shuffled(8), Conv(8, 16, 1), Logits(16)
    )


class Tiramisu(nn.Module):
    """FC-DenseNet (Jégou et al., 2017): dense blocks down and up, skip concatenations.

    Up blocks hand on only their new maps, which a transposed convolution enlarges, or a Resize with a convolution.
    """

    def __init__(self, *, resize: str = "", volume: bool = False) -> None:
        super().__init__()
        self.resize = resize
        conv, norm, pool, grow = (
            (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d, nn.ConvTranspose3d) if volume
            else (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d, nn.ConvTranspose2d)
        )  # fmt: skip

        def layer(n_in: int, growth: int) -> nn.Module:
            return nn.Sequential(norm(n_in), nn.ReLU(), conv(n_in, growth, 3, padding=1, bias=False))

        self.stem, self.down = conv(1 if volume else 3, 8, 3, padding=1), Dense(8, 2, 4, layer)
        self.shrink = nn.Sequential(norm(16), nn.ReLU(), conv(16, 16, 1), pool(2))
        self.middle = nn.ModuleList(layer(16 + 4 * i, 4) for i in range(2))
        self.grow = conv(8, 8, 3, padding=1) if resize else grow(8, 8, 3, stride=2)
        self.up, self.final = Dense(24, 2, 4, layer), conv(32, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down(self.stem(x))
        y, new = self.shrink(skip), []
        for layer in self.middle:
            new.append(layer(y))
            y = torch.cat([y, new[-1]], 1)
        y = torch.cat(new, 1)
        if self.resize:
            y = functional.interpolate(y, scale_factor=2.0, mode=self.resize)
            y = self.grow(y)
        else:
            y = self.grow(y)[(..., *(slice(size) for size in skip.shape[2:]))]
        return self.final(self.up(torch.cat([y, skip], 1))).flatten(2).mean(2)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vovnet": vovnet,
    "ese_vovnet": lambda: vovnet(gated=True),
    "rdnet": rdnet,
    "dpn": dpn,
    "cspdensenet": cspdensenet,
    "cspdensenet, SiLU": lambda: cspdensenet(nn.SiLU),
    "hardnet": hardnet,
    "peleenet": peleenet,
    "shufflenet": shufflenet,
    "blurnet": blurnet,
    "tiramisu": Tiramisu,
    "tiramisu, nearest": lambda: Tiramisu(resize="nearest"),
    "tiramisu, bilinear": lambda: Tiramisu(resize="bilinear"),
    "tiramisu, 3-D": lambda: Tiramisu(volume=True),
    "densenet, 1-D": lambda: densenet_nd(1),
    "densenet, 3-D": lambda: densenet_nd(3),
}
SHAPES = {"densenet, 1-D": (1, 128), "densenet, 3-D": (1, 16, 16, 16), "tiramisu, 3-D": (1, 8, 8, 8)}
"""Shape of one input; (3, 32, 32) for all others."""


def shape_of(name: str) -> tuple[int, ...]:
    return SHAPES.get(name, (3, 32, 32))
