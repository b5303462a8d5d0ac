"""DenseNetSpec → torch.nn.Module. The forward pass as the paper gives it, nothing else: no training tricks, no loading.

Parameter names are torchvision's (``features.denseblock1.denselayer1.norm1.weight``), so a checkpoint that was
canonicalized by ``structure`` loads strictly.

Source: Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", CVPR 2017, section 3.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from deploy_kit.records import DenseBlock, DenseNetSpec


class DenseLayer(nn.Module):
    """One composite function H: BN-ReLU-conv1×1-BN-ReLU-conv3×3, or BN-ReLU-conv3×3 without a bottleneck."""

    def __init__(self, width: int, block: DenseBlock, eps: float) -> None:
        """Take (N, width, H, W), give (N, block.growth, H, W)."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width, eps=eps)
        if block.bottleneck is None:
            self.conv1 = nn.Conv2d(width, block.growth, 3, padding=1, bias=False)
        else:
            self.conv1 = nn.Conv2d(width, block.bottleneck, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(block.bottleneck, eps=eps)
            self.conv2 = nn.Conv2d(block.bottleneck, block.growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(torch.relu(self.norm1(x)))
        if hasattr(self, "conv2"):
            x = self.conv2(torch.relu(self.norm2(x)))
        return x


class DenseBlockModule(nn.Module):
    """Layers that each read the concatenation of the block's input and all earlier outputs."""

    def __init__(self, width: int, block: DenseBlock, eps: float) -> None:
        """Take (N, width, H, W), give (N, width + layers · growth, H, W)."""
        super().__init__()
        for index in range(block.layers):
            layer = DenseLayer(width + index * block.growth, block, eps)
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.children():
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


class Transition(nn.Module):
    """BN-ReLU-conv1×1 and a 2×2 average pool between two dense blocks."""

    def __init__(self, width: int, out: int, eps: float) -> None:
        """Take (N, width, H, W), give (N, out, H // 2, W // 2)."""
        super().__init__()
        self.norm = nn.BatchNorm2d(width, eps=eps)
        self.conv = nn.Conv2d(width, out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(self.conv(torch.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """A DenseNet for 2-D images with one linear head; gives logits (N, classes)."""

    def __init__(self, spec: DenseNetSpec) -> None:
        """Build the layers that `spec` names, with torch's default initial weights."""
        super().__init__()
        stem = OrderedDict[str, nn.Module]()
        stem["conv0"] = nn.Conv2d(
            spec.in_channels,
            spec.stem_channels,
            spec.stem_kernel,
            stride=spec.stem_stride,
            padding=spec.stem_kernel // 2,
            bias=False,
        )
        if spec.stem_norm:
            stem["norm0"] = nn.BatchNorm2d(spec.stem_channels, eps=spec.eps)
            stem["relu0"] = nn.ReLU()
        if spec.stem_pool:
            stem["pool0"] = nn.MaxPool2d(3, stride=2, padding=1)
        self.features = nn.Sequential(stem)
        width = spec.stem_channels
        for index, block in enumerate(spec.blocks, start=1):
            self.features.add_module(f"denseblock{index}", DenseBlockModule(width, block, spec.eps))
            width += block.layers * block.growth
            if index <= len(spec.transitions):
                out = spec.transitions[index - 1]
                self.features.add_module(f"transition{index}", Transition(width, out, spec.eps))
                width = out
        self.features.add_module("norm5", nn.BatchNorm2d(width, eps=spec.eps))
        self.classifier = nn.Linear(width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(torch.relu(self.features(x)), 1)
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits
