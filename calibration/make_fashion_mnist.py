"""Make the bundled image sets from Debian's package ``dataset-fashion-mnist``; the same files come out each time.

    python calibration/make_fashion_mnist.py

    fashion-mnist-512     512 training images, drawn with a seed, equally from the 10 classes: for calibration
    fashion-mnist-32      every sixteenth of these: for sweeps over networks with random weights
    fashion-mnist-10000   all 10,000 test images: for checking

A training image that occurs among the test images (by sha256 of its pixels) is never drawn.
"""

import argparse
import gzip
import hashlib
import io
import json
import zipfile
from pathlib import Path

import numpy as np

DATA = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "Fashion-MNIST (Zalando Research, MIT licence), Debian package dataset-fashion-mnist"


def read_idx(path: Path) -> np.ndarray:
    """Read one gzipped idx file of uint8: images (N, 28, 28) or labels (N,)."""
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


def hashes(images: np.ndarray) -> list[str]:
    """Hash each image's pixels."""
    return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]


def balanced(labels: np.ndarray, n: int, seed: int, barred: set[int]) -> np.ndarray:
    """Draw `n` indices, as equally from the classes as `n` allows, in random order."""
    generator = np.random.default_rng(seed)
    classes = np.unique(labels)
    share, rest = divmod(n, len(classes))
    drawn = []
    for position, label in enumerate(classes):
        candidates = np.array([i for i in np.flatnonzero(labels == label) if i not in barred])
        drawn.append(generator.choice(candidates, share + (position < rest), replace=False))
    return generator.permutation(np.concatenate(drawn))


def write(path: Path, images: np.ndarray, labels: np.ndarray, facts: dict[str, object]) -> None:
    """Write a compressed npz whose bytes depend on its content alone, and its manifest."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in (("images", images), ("labels", labels)):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(array))
            entry = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, buffer.getvalue())
    manifest = {"source": SOURCE, "count": len(images), **facts, "sha256": hashes(images)}
    path.with_suffix(".json").write_text(json.dumps(manifest, indent=0) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    train = read_idx(options.data / "train-images-idx3-ubyte.gz")
    train_labels = read_idx(options.data / "train-labels-idx1-ubyte.gz")
    test = read_idx(options.data / "t10k-images-idx3-ubyte.gz")
    test_labels = read_idx(options.data / "t10k-labels-idx1-ubyte.gz")
    tested = set(hashes(test))
    barred = {index for index, digest in enumerate(hashes(train)) if digest in tested}
    print(f"{len(barred)} training images occur among the test images and are barred")
    index = balanced(train_labels, 512, options.seed, barred)
    facts = {"split": "train", "seed": options.seed, "classes": 10}
    write(options.out / "fashion-mnist-512.npz", train[index], train_labels[index], facts)
    write(options.out / "fashion-mnist-32.npz", train[index[::16]], train_labels[index[::16]], facts)
    write(options.out / "fashion-mnist-10000.npz", test, test_labels, {"split": "test", "seed": None, "classes": 10})


if __name__ == "__main__":
    main()
