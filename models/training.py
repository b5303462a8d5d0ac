"""What the training scripts share: Fashion-MNIST as Debian packages it, augmentation, one loop, the score.

Data: ``dataset-fashion-mnist`` (60,000 training and 10,000 test images, 28×28 gray, MIT licence).
"""

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from calibration.make_fashion_mnist import DATA, read_idx

MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, range 0..1


@dataclass(frozen=True, kw_only=True)
class Split:
    """Images (N, 1, 28, 28) float32 in 0..1, and their labels (N,) int64."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast: SGD with Nesterov momentum, one cosine cycle up to `peak`."""

    epochs: int
    peak: float
    seed: int
    batch: int = 128
    weight_decay: float = 2e-4


def parser(about: str | None, epochs: int, out: str) -> argparse.ArgumentParser:
    """Give a script's command line."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--data", type=Path, default=DATA)
    made.add_argument("--images", type=int, default=60_000, help="how many training images to take")
    made.add_argument("--epochs", type=int, default=epochs)
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", type=Path, default=Path(out))
    return made


def splits(folder: Path, n: int) -> tuple[Split, Split]:
    """Read the first `n` training images, and all test images."""

    def read(name: str, most: int) -> Split:
        images = read_idx(folder / f"{name}-images-idx3-ubyte.gz")[:most]
        labels = read_idx(folder / f"{name}-labels-idx1-ubyte.gz")[:most]
        pixels = torch.from_numpy(images.copy()).float().div_(255)[:, None]
        return Split(images=pixels, labels=torch.from_numpy(labels.astype(np.int64)))

    return read("train", n), read("t10k", 10_000)


def augmented(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 1 px and flip each image of (N, 1, 28, 28) at random; black comes in at the border."""
    n, _, h, w = batch.shape
    padded = nn.functional.pad(batch, (1, 1, 1, 1))
    top, left = torch.randint(0, 3, (2, n), generator=generator)
    flip = torch.rand(n, generator=generator) < 0.5
    columns = torch.arange(w).expand(n, w)
    columns = torch.where(flip[:, None], w - 1 - columns, columns) + left[:, None]
    rows = torch.arange(h).expand(n, h) + top[:, None]
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][:, None]


@torch.no_grad()
def top1(model: nn.Module, test: Split, prepared: Callable[[Tensor], Tensor]) -> float:
    """Measure the share of images whose largest logit is at the label."""
    model.eval()
    pairs = zip(test.images.split(500), test.labels.split(500), strict=True)
    hits = sum(int((model(prepared(images)).argmax(1) == labels).sum()) for images, labels in pairs)
    return hits / len(test.labels)


def train(
    model: nn.Module, train_split: Split, test: Split, prepared: Callable[[Tensor], Tensor], schedule: Schedule
) -> float:
    """Train in place and give the top-1 of the last epoch: the test images choose nothing.

    Args:
        model: Takes what `prepared` gives.
        train_split: To learn from.
        test: To score on, after each epoch.
        prepared: (N, 1, 28, 28) in 0..1 → the model's input.
        schedule: How.
    """
    generator = torch.Generator().manual_seed(schedule.seed)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks this form
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    steps = schedule.epochs * math.ceil(len(train_split.labels) / schedule.batch)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=schedule.peak, momentum=0.9, nesterov=True, weight_decay=schedule.weight_decay
    )
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, schedule.peak, total_steps=steps, pct_start=0.2)
    loss_of, score = nn.CrossEntropyLoss(), 0.0
    for epoch in range(schedule.epochs):
        model.train()
        begun, total = time.perf_counter(), 0.0
        for index in torch.randperm(len(train_split.labels), generator=generator).split(schedule.batch):
            optimizer.zero_grad()
            inputs = prepared(augmented(train_split.images[index], generator))
            with torch.autocast("cpu", torch.bfloat16):  # 1.8× faster than float32 where the CPU has AVX512-BF16
                logits = model(inputs.to(memory_format=torch.channels_last))
            loss = loss_of(logits.float(), train_split.labels[index])
            loss.backward()
            optimizer.step()
            rate.step()
            total += float(loss.detach()) * len(index)
        score = top1(model, test, prepared)
        mean, seconds = total / len(train_split.labels), time.perf_counter() - begun
        print(f"epoch {epoch + 1}: loss {mean:.4f}, test top-1 {score:.4f}, {seconds:.0f} s", flush=True)
    return score
