"""Classify images with this bundle: ``python predict.py photo.jpg``.

Needs numpy, Pillow and the engine's own package; `manifest.json` beside this file says which. As a module:

    classifier = Classifier()
    classifier.predict("photo.jpg")  # [("cat", 0.93), ("dog", 0.04), …]
"""

import os
import sys
import time

BEGUN = time.perf_counter()
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != HERE]  # nothing here hides numpy or json
sys.dont_write_bytecode = True  # the bundle stays as it was packed

import argparse
import contextlib
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "WEBP", "PPM", "TIFF", "GIF")
DTYPES = {"float": np.float32, "float16": np.float16, "uint8": np.uint8}
ORIENTATION = 0x0112  # of EXIF; 1 is upright


class Classifier:
    """The network of this bundle, loaded once."""

    def __init__(self, folder: str | Path = HERE, *, orientation: str | None = None, **options: Any) -> None:
        """Load the engine.

        Args:
            folder: The bundle.
            orientation: Whether files with an EXIF orientation are read ``stored`` or ``upright``; by default as the
                check of this bundle read them.
            **options: Options of the engine in place of those of the manifest, e.g. ``threads=1``.
        """
        self.manifest = json.loads((Path(folder) / "manifest.json").read_text(encoding="utf-8"))
        self.orientation = orientation or self.manifest["orientation"]
        self.classes = self.manifest["classes"] or [str(k) for k in range(self.manifest["outputs"][0]["shape"][1])]
        open_engine = runpy.run_path(str(Path(folder) / "engine.py"))["open_engine"]
        self._run = open_engine(Path(folder) / self.manifest["engine"]["file"], self.manifest, options)

    def predict(self, image: Any, top: int = 5) -> list[tuple[str, float]]:
        """Return the likeliest classes of one image as (name, score), best first; see `prepare` for `image`."""
        return self.predict_batch([image], top)[0]

    def predict_batch(self, images: Any, top: int = 5) -> list[list[tuple[str, float]]]:
        """Return for each image what `predict` does."""
        scores = self.scores(self.logits(np.stack([self.prepare(image) for image in images])))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :top]
        return [[(self.classes[k], float(row[k])) for k in ranks] for row, ranks in zip(scores, order)]

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Turn outputs (n, K) into scores (n, K) float64 in 0..1, as the manifest says."""
        wide = logits.astype(np.float64)
        if self.manifest["scores"] == "softmax":
            wide = np.exp(wide - wide.max(axis=1, keepdims=True))
            wide /= wide.sum(axis=1, keepdims=True)
        return 1 / (1 + np.exp(-np.clip(wide, -700, 700))) if self.manifest["scores"] == "sigmoid" else wide

    def logits(self, tensors: np.ndarray) -> np.ndarray:
        """Run inputs (n, …), each as `prepare` returns it; return outputs (n, K) float32."""
        tensors = tensors.astype(DTYPES[self.manifest["inputs"][0]["dtype"]])
        batch = self.manifest["inputs"][0]["shape"][0]
        batch = batch if isinstance(batch, int) else len(tensors)  # an open batch takes all at once
        parts = [tensors[start : start + batch] for start in range(0, len(tensors), batch)]
        full = [np.concatenate([part, np.repeat(part[-1:], batch - len(part), axis=0)]) for part in parts]
        return np.concatenate([self._run(part) for part in full])[: len(tensors)].astype(np.float32)

    def prepare(self, image: Any, *, ready: bool = False) -> np.ndarray:
        """Turn an image into what the engine takes: (C, H, W) float32, or the pixels (H, W, C) uint8.

        Args:
            image: Path of an image file, a Pillow image, or pixels: uint8 (H, W) or (H, W, 3) in RGB order.
            ready: The image was resized and cut before, and is used as it is.
        """
        wanted = self.manifest["preprocess"]
        pixels = image if isinstance(image, np.ndarray) else self._pixels(image)
        if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,)):
            raise ValueError(f"expected uint8 (H, W) or (H, W, 3), found {pixels.dtype} {pixels.shape}")
        if wanted["resize"] is not None and not ready:
            pixels = self._cut(pixels, wanted)
        if pixels.shape[:2] != (wanted["height"], wanted["width"]):
            raise ValueError(f"expected {wanted['height']}×{wanted['width']} px, found {pixels.shape[:2]}")
        if pixels.ndim == 3 and wanted["color"] == "gray":
            raise ValueError("expected a gray image, found 3 channels: convert it to gray first")
        frame = pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], len(wanted["mean"]), axis=2)
        if wanted.get("input_pixels"):
            return np.ascontiguousarray(frame)
        planes = frame.transpose(2, 0, 1)[:: -1 if wanted["color"] == "bgr" else 1]
        mean, std = (np.asarray(wanted[key], np.float32)[:, None, None] for key in ("mean", "std"))
        return (planes.astype(np.float32) / np.float32(255) - mean) / std

    def _pixels(self, image: Any) -> np.ndarray:
        """Read a file or a Pillow image: gray as (H, W), all else as (H, W, 3) without transparency."""
        from PIL import Image, ImageOps

        if not isinstance(image, Image.Image):
            with Image.open(image, formats=FORMATS) as opened:
                return self._pixels(opened)
        if getattr(image, "is_animated", False) and image.format != "MPO":  # MPO: a photograph with previews
            raise ValueError("expected one image, found several frames or pages")
        turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
        if turned and self.orientation is None:
            raise ValueError("it has an EXIF orientation: say 'stored' or 'upright' (--orientation), as in training")
        upright = ImageOps.exif_transpose(image) if turned and self.orientation == "upright" else image
        if upright.mode == "F" or upright.mode.startswith("I"):
            raise ValueError(f"expected 8 bits a channel, found mode '{upright.mode}'")
        return np.asarray(upright.convert("L" if upright.mode in ("L", "LA", "1") else "RGB"))

    def _cut(self, pixels: np.ndarray, wanted: dict[str, Any]) -> np.ndarray:
        """Scale the shorter side, antialiased, and cut the center out, rounding as torchvision does."""
        from PIL import Image

        image, height, width = Image.fromarray(pixels), wanted["height"], wanted["width"]
        size = tuple(wanted["resize"] * side // min(image.size) for side in image.size)
        scaled = np.asarray(image.resize(size, Image.Resampling[wanted["interpolation"].upper()]))
        top, left = round((scaled.shape[0] - height) / 2), round((scaled.shape[1] - width) / 2)
        return scaled[max(0, top) : top + height, max(0, left) : left + width]


def main() -> None:
    """Print the likeliest classes of each file, and on standard error how long it took; exit codes as of verify.py."""
    parser = argparse.ArgumentParser(description="Classify images with this bundle.")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--top", type=int, default=5, help="number of classes to show (5)")
    parser.add_argument("--orientation", choices=("stored", "upright"), help="how EXIF orientations are read")
    given = parser.parse_args()
    try:
        classifier = Classifier(orientation=given.orientation)
    except Exception:  # each runtime raises classes of its own
        with contextlib.redirect_stdout(sys.stderr):
            code = runpy.run_path(os.path.join(HERE, "verify.py"))["main"]()  # it says what is wrong with the bundle
        if not code:
            raise
        sys.exit(code)
    for number, file in enumerate(given.images):
        begun = time.perf_counter()
        try:
            found = classifier.predict(file, given.top)
        except ImportError as error:
            print(f"FAILED  {error}; pip install pillow", file=sys.stderr)
            sys.exit(3)
        except (OSError, ValueError) as error:
            parser.error(f"{file}: {error}")
        since = f", {1e3 * (time.perf_counter() - BEGUN):.0f} ms since the start" if number == 0 else ""
        print(f"{file}: " + ", ".join(f"{name} {100 * score:.2f} %" for name, score in found))
        print(f"  {1e3 * (time.perf_counter() - begun):.1f} ms{since}", file=sys.stderr)


if __name__ == "__main__":
    main()
