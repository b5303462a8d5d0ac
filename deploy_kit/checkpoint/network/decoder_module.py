"""The decoder of a segmentation network as a torch module: levels that enlarge, join with the encoder's map, compute.

Feature pyramids: Kirillov, Girshick, He, Dollár, "Panoptic Feature Pyramid Networks", CVPR 2019, section 3.1.

Sources: Jégou et al., "The One Hundred Layers Tiramisu", CVPR Workshops 2017 (arXiv 1611.09326), section 3, and its
code, whose center crop keeps the first pixels; segmentation_models_pytorch 0.5.0, decoders/unet and decoders/fpn.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy_kit.checkpoint.network.dense_modules import DenseBlockModule, conv, named_convs
from deploy_kit.records.densenet import DenseNetSpec, Pyramid, UpLevel, Upsampling

_TRANSPOSED: tuple[Callable[..., nn.Module], ...] = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
UPSAMPLES = (3, 2, 1, 0)  # how often the branches of a pyramid double their map, from the smallest up
_LINEAR = ("linear", "bilinear", "trilinear")


class UpLevelModule(nn.Module):
    """One level: the map below is enlarged and joined with the encoder's; a dense block or convolutions follow."""

    def __init__(self, read: int, skip: int, level: UpLevel, spec: DenseNetSpec, *, new_only: bool) -> None:
        """Map (N, read, h, w) and (N, skip, H, W) to (N, width, H, W)."""
        super().__init__()
        assert spec.decoder is not None
        self.decoder, self.joined = spec.decoder, skip > 0
        joined = level.channels + skip
        if level.block is not None:
            enlarge = _TRANSPOSED[spec.ndim - 1]
            self.up = enlarge(read, level.channels, level.kernel, stride=2, bias=level.bias)
            self.block: nn.Module = DenseBlockModule(joined, level.block, spec, new_only=new_only)
            self.width = joined * (not new_only) + level.block.layers * level.block.growth
        else:
            self.block = nn.Sequential()
            for name, part in named_convs(level.convs, joined, spec):
                self.block.add_module(name, part)
            self.width = level.convs[-1].channels

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        sides = skip.shape[2:]
        if self.decoder.dense:
            x = _cropped(self.up(x), sides, to_end=self.decoder.up_crop == "end")
        else:
            x = resized(x, sides, self.decoder.upsampling)
        if not self.joined:
            return self.block(x)  # type: ignore[no-any-return]
        pair = [x, skip] if self.decoder.skip_order == "up_first" else [skip, x]
        return self.block(torch.cat(pair, 1))  # type: ignore[no-any-return]


class PyramidModule(nn.Module):
    """A feature pyramid; its branches enlarge bilinearly, corners on corners."""

    def __init__(self, spec: DenseNetSpec, pyramid: Pyramid) -> None:
        """Map the last map and the three before it, the smallest first, to (N, width, H, W) of the largest's size."""
        super().__init__()
        assert spec.decoder is not None
        self.upsampling, self.merge = spec.decoder.upsampling, pyramid.merge
        ones, threes = (1,) * spec.ndim, (3,) * spec.ndim
        self.laterals = nn.Sequential(
            *(conv(read, pyramid.channels, ones, bias=True) for read in (spec.width, *spec.skips[: len(UPSAMPLES) - 1]))
        )
        self.branches = nn.Sequential()
        for n_up in UPSAMPLES:
            branch, read = nn.Sequential(), pyramid.channels
            for _ in range(max(n_up, 1)):
                branch.append(conv(read, pyramid.branch, threes, bias=False))
                branch.append(nn.GroupNorm(pyramid.groups, pyramid.branch))
                read = pyramid.branch
            self.branches.append(branch)
        self.width = pyramid.branch * (1 if pyramid.merge == "add" else len(UPSAMPLES))

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        first, *others = self.laterals
        maps = [first(x)]
        for lateral, skip in zip(others, skips, strict=False):
            maps.append(resized(maps[-1], skip.shape[2:], self.upsampling) + lateral(skip))
        rows = []
        for y, branch, n_up in zip(maps, self.branches, UPSAMPLES, strict=True):
            layers = list(branch.children())
            for convolve, norm in zip(layers[::2], layers[1::2], strict=True):
                y = torch.relu(norm(convolve(y)))
                y = enlarged(y, 2) if n_up else y
            rows.append(y)
        return torch.stack(rows).sum(0) if self.merge == "add" else torch.cat(rows, 1)


class DecoderModule(nn.Module):
    """All levels, from the smallest map up."""

    def __init__(self, spec: DenseNetSpec) -> None:
        """Map the last map and those of the encoder, the smallest first, to (N, width, H, W) of the input's size."""
        super().__init__()
        assert spec.decoder is not None
        levels, last = spec.decoder.levels, spec.blocks[-1]
        width = last.layers * last.growth if spec.decoder.reads_new else spec.width
        above = [level.reads_all for level in levels[1:]] + [spec.decoder.reads_all]
        for at, (level, skip) in enumerate(itertools.zip_longest(levels, spec.skips, fillvalue=0)):
            assert isinstance(level, UpLevel) and isinstance(skip, int)
            module = UpLevelModule(width, skip, level, spec, new_only=not above[at])
            self.add_module(f"level{at + 1}", module)
            width = module.width
        self.width = width

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        for level, skip in zip(self.children(), skips, strict=False):
            x = level(x, skip)
        return x


def resized(x: Tensor, sides: Sequence[int], upsampling: Upsampling) -> Tensor:
    """Resize a map to other sides, pixel centers on pixel centers."""
    mode = "nearest" if upsampling == "nearest" else _LINEAR[len(sides) - 1]
    return functional.interpolate(x, size=tuple(sides), mode=mode)


def enlarged(x: Tensor, times: int) -> Tensor:
    """Enlarge a map bilinearly, corners on corners."""
    sides = tuple(times * side for side in x.shape[2:])
    return functional.interpolate(x, size=sides, mode=_LINEAR[x.dim() - 3], align_corners=True)


def _cropped(x: Tensor, sides: Sequence[int], *, to_end: bool) -> Tensor:
    """Cut the middle of a map, (N, C, H, W); of an odd number of pixels too many the end has one more, or the start."""
    for axis, side in enumerate(sides, start=2):
        over = x.shape[axis] - side
        if over:
            x = x.narrow(axis, (over + 1) // 2 if to_end else over // 2, side)
    return x
