"""Train a small FC-DenseNet (Jégou et al., CVPR Workshops 2017) on scenes of Fashion-MNIST items, and write it as ONNX.

Flips left to right; AdamW with one cosine cycle. The weights of the last step are kept, whatever they score.

    python -m models.train_segmentation --out models/fcdensenet_scenes.onnx
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from calibration.make_fashion_mnist import DATA
from models.scenes import CLASSES, SIDE, scenes

MEAN, STD = 0.33, 0.23  # of 1,000 training scenes, range 0..1


def layer(channels: int, growth: int, kernel: int = 3) -> nn.Sequential:
    """Return BN, ReLU and a convolution: a dense layer, or a transition's."""
    return nn.Sequential(
        nn.BatchNorm2d(channels), nn.ReLU(), nn.Conv2d(channels, growth, kernel, padding=kernel // 2, bias=False)
    )


class DenseBlock(nn.Module):
    """Layers of which each reads all feature maps before it."""

    def __init__(self, channels: int, n: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(channels + at * growth, growth) for at in range(n))
        self.new = n * growth

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return input and new feature maps together, and the new ones alone."""
        maps = [x]
        for one in self.layers:
            maps.append(one(torch.cat(maps, 1)))
        return torch.cat(maps, 1), torch.cat(maps[1:], 1)


class FCDenseNet(nn.Module):
    """FC-DenseNet: dense blocks down and up, each way up joined to its level's maps by a concatenation.

    The stem halves the sides, and a transposed convolution before the head doubles them: a quarter of the work.
    """

    def __init__(self, stem: int, down: tuple[int, ...], middle: int, growth: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, stem, 3, stride=2, padding=1, bias=False)
        channels, skips = stem, []
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for n in down:
            self.down.append(DenseBlock(channels, n, growth))
            channels += n * growth
            skips.append(channels)
            self.shrink.append(nn.Sequential(layer(channels, channels // 2, 1), nn.MaxPool2d(2)))
            channels //= 2
        self.middle = DenseBlock(channels, middle, growth)
        self.grow, self.up = nn.ModuleList(), nn.ModuleList()
        new = self.middle.new
        for n, skip in zip(reversed(down), reversed(skips), strict=True):
            self.grow.append(nn.ConvTranspose2d(new, new, 2, stride=2))
            self.up.append(DenseBlock(skip + new, n, growth))
            channels, new = skip + new + n * growth, n * growth
        self.full = nn.ConvTranspose2d(channels, 2 * stem, 2, stride=2)
        self.head = nn.Conv2d(2 * stem, classes, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) → (N, classes, H, W) logits."""
        x, skips = self.stem(x), []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            x, _ = block(x)
            skips.append(x)
            x = shrink(x)
        _, new = self.middle(x)
        for grow, block in zip(self.grow, self.up, strict=True):
            x, new = block(torch.cat([skips.pop(), grow(new)], 1))
        return self.head(self.full(x).relu())


def mean_iou(model: nn.Module, images: Tensor, masks: Tensor) -> float:
    """Measure mIoU over the whole set: intersections and unions are summed over the images before they are divided."""
    model.eval()
    k, counts = len(CLASSES), torch.zeros(len(CLASSES) ** 2, dtype=torch.int64)
    with torch.no_grad():
        for part, truth in zip(images.split(100), masks.split(100), strict=True):
            counts += torch.bincount((truth * k + model(part).argmax(1)).flatten(), minlength=k * k)
    table = counts.reshape(k, k).double()
    both = table.diagonal()
    return float((both / (table.sum(0) + table.sum(1) - both)).mean())


def tensors(folder: Path, split: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return scenes as the model's input (n, 1, 64, 64) float32, and their masks (n, 64, 64) int64."""
    images, masks = scenes(folder, split, n, seed)
    pixels = torch.from_numpy(images).float().div_(255)[:, None]
    return (pixels - MEAN) / STD, torch.from_numpy(masks.astype(np.int64))


def train(model: nn.Module, images: Tensor, masks: Tensor, steps: int, seed: int, limit_s: float) -> None:
    """Train in place: `steps` batches of 32, or as many as `limit_s` seconds take; the rate falls with the nearer."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=1e-4)
    loss_of, begun, step, done = nn.CrossEntropyLoss(), time.monotonic(), 0, 0.0
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    while done < 1:
        index = torch.randint(0, len(images), (32,), generator=generator)
        batch, truth = images[index], masks[index]
        if step % 2:
            batch, truth = batch.flip(-1), truth.flip(-1)
        rate = 5e-3 * min(done / 0.05, 0.5 * (1 + np.cos(np.pi * done))) + 1e-5
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):  # twice as fast as float32 where the CPU has AVX512-BF16
            logits = model(batch.to(memory_format=torch.channels_last))
        loss = loss_of(logits.float(), truth)
        loss.backward()
        optimizer.step()
        step += 1
        done = max(step / steps, (time.monotonic() - begun) / limit_s)
        if step % 100 == 0:
            print(f"step {step}: loss {float(loss.detach()):.4f}, {time.monotonic() - begun:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--scenes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=2_500)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=float, default=840, help="seconds of training at most")
    parser.add_argument("--out", type=Path, default=Path("models/fcdensenet_scenes.onnx"))
    given = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(given.threads)
    model = FCDenseNet(stem=16, down=(3, 4), middle=5, growth=12, classes=len(CLASSES))
    images, masks = tensors(given.data, "train", given.scenes, 3)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    train(model, images, masks, given.steps, 0, given.limit)
    model.eval()
    torch.onnx.export(
        model, (torch.zeros(1, 1, SIDE, SIDE),), given.out, input_names=["input"], output_names=["logits"],
        dynamo=False, opset_version=17, dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )  # fmt: skip
    score = mean_iou(model, *tensors(given.data, "t10k", 2_000, 2))
    proto = onnx.load(given.out)
    preprocess = {"color": "gray", "height": SIDE, "interpolation": "bilinear", "mean": [MEAN], "resize": None}
    facts = {
        "deploykit.preprocess": json.dumps({**preprocess, "std": [STD], "width": SIDE}),
        "deploykit.classes": json.dumps(CLASSES),
        "test_miou": f"{score:.4f}",
    }
    onnx.helper.set_model_props(proto, facts)
    onnx.save(proto, given.out)
    print(f"test mIoU {score:.4f}")


if __name__ == "__main__":
    main()
