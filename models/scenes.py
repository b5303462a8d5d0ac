"""Scenes of Fashion-MNIST items with masks: 64×64 gray images whose every pixel has a class; the same each time.

    python -m models.scenes --out scenes/

    scenes-train-512.npz    512 scenes of training items: for calibration
    scenes-test-2000.npz    2,000 scenes of test items: for checking

Two to five items lie over each other on a noisy background at random places, half of them flipped. A pixel of an item
is one that is brighter than `DARKEST`; what lies on top has it. Class 0 is the background, 1 to 10 are Fashion-MNIST's.
"""

import argparse
from pathlib import Path

import numpy as np

from calibration.make_fashion_mnist import DATA, read_idx

SIDE, ITEM, DARKEST = 64, 28, 16
CLASSES = (
    "background", "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"
)  # fmt: skip


def compose(items: np.ndarray, labels: np.ndarray, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose scenes.

    Args:
        items: (m, 28, 28) uint8.
        labels: (m,) classes 0..9 of the items.
        n: Number of scenes.
        seed: Seed of the random numbers, which decide all of it.

    Returns:
        Images (n, 64, 64) uint8, and masks (n, 64, 64) uint8 of classes 0..10.
    """
    random = np.random.default_rng(seed)
    level, noise = random.integers(0, 80, (n, 1, 1)), random.integers(0, 40, (n, SIDE, SIDE))
    images, masks = (level + noise).astype(np.uint8), np.zeros((n, SIDE, SIDE), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        for index in random.integers(0, len(items), random.integers(2, 6)):
            item = items[index][:, :: random.choice((-1, 1))]
            top, left = random.integers(-4, SIDE - ITEM + 5, 2)
            rows, columns = (slice(max(0, at), min(SIDE, at + ITEM)) for at in (top, left))
            part = item[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            image[rows, columns] = np.where(part > DARKEST, part, image[rows, columns])
            mask[rows, columns] = np.where(part > DARKEST, labels[index] + 1, mask[rows, columns])
    return images, masks


def scenes(folder: Path, split: str, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Compose scenes of the items of one split, ``train`` or ``t10k``."""
    items, labels = (read_idx(folder / f"{split}-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    return compose(items, labels, n, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path())
    given = parser.parse_args()
    for name, split, n, seed in (("train-512", "train", 512, 1), ("test-2000", "t10k", 2000, 2)):
        images, masks = scenes(given.data, split, n, seed)
        np.savez_compressed(given.out / f"scenes-{name}.npz", images=images, masks=masks)


if __name__ == "__main__":
    main()
