"""A set of images in a fixed order, with what is known of it: streamed as tensors, never held in memory whole."""

import functools
import hashlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal

import numpy as np

from deploy_kit.base.errors import InputError
from deploy_kit.images.ordered import in_order
from deploy_kit.images.tensors import Crops, expect_room, ten_crops, to_tensors
from deploy_kit.records.artifacts import BareInput, Preprocess

_TOLD = 3
Orientation = Literal["stored", "upright"]
TruthKind = Literal["masks", "texts", "numbers"]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Labels that are no class numbers, one of each image.

    Attributes:
        kind: ``masks`` of class numbers, ``texts``, or ``numbers``.
        names: Name of each in a message.
        hashes: sha256 of each.
        load: Index → int32 (H, W), a text, or float64 (D,).
    """

    kind: TruthKind
    names: tuple[str, ...]
    hashes: tuple[str, ...]
    load: Callable[[int], Any]

    def taken(self, places: Sequence[int]) -> "Truth":
        """Take the labels at these places."""
        return replace(
            self,
            names=tuple(self.names[at] for at in places),
            hashes=tuple(self.hashes[at] for at in places),
            load=lambda index: self.load(places[index]),
        )


@dataclass(frozen=True, kw_only=True)
class ImageSet:
    """A set of images in a fixed order.

    Attributes:
        name: As the recipe names it.
        n: Number of images.
        labels: (n,) int64; (n, K) uint8 of 0 and 1 where an image may be of several classes; or None.
        hashes: sha256 of each image: of its pixels in an npz, of its file elsewhere.
        load: Index → pixels, uint8 (H, W) or (H, W, 3) in RGB order; for a bare input its tensor.
        classes: Names of the classes in the order of their numbers; empty where only numbers are known.
        files: Name of each image's file as its folder or manifest has it; empty for an npz.
        skipped: (file, why) of what was left out because it cannot be used; only where that was asked for.
        skip_bad: Whether it was asked for.
        passed_over: (ending, number) of the files beside them that are no images by their ending, though they may be.
        turned: Files that are turned upright by their EXIF tag.
        orientation: What was said of images with such a tag; None where nothing was.
        truth: Labels that are no class numbers; None where there are none.
        decoded: Entry of `hashes` → hash of the pixels of that file, as far as files were decoded; shared by all parts
            of a set.
    """

    name: str
    n: int
    labels: np.ndarray | None
    hashes: tuple[str, ...]
    load: Callable[[int], np.ndarray]
    classes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    skip_bad: bool = False
    passed_over: tuple[tuple[str, int], ...] = ()
    turned: tuple[str, ...] = ()
    orientation: Orientation | None = None
    truth: Truth | None = None
    decoded: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def labelled(self) -> bool:
        """Whether it has labels of any kind."""
        return self.labels is not None or self.truth is not None

    @property
    def digest(self) -> str:
        """Hash of the whole set: images, order and labels."""
        labels = b"" if self.labels is None else np.asarray(self.labels, np.int64).tobytes()
        several = f"{self.labels.shape[1]} classes" if self.labels is not None and self.multilabel else ""
        turned = f"turned {self.turned}" if self.turned else ""
        truth = "".join((self.truth.kind, *self.truth.hashes)) if self.truth else ""
        return hashlib.sha256("".join(self.hashes).encode() + labels + (several + turned + truth).encode()).hexdigest()

    @property
    def pixel_digest(self) -> str:
        """Hash of what the images look like, in their order: neither names nor labels are in it."""
        turned = set(self.turned)
        upright = "".join(str(int(file in turned)) for file in self.files) if turned else ""
        return hashlib.sha256(("".join(self.hashes) + upright).encode()).hexdigest()

    @property
    def multilabel(self) -> bool:
        """Whether an image may be of several classes."""
        return self.labels is not None and self.labels.ndim == 2

    @property
    def left_out(self) -> str:
        """How many images were left out, and the first of them, and which files were passed over; empty if none."""
        return "; ".join(filter(None, (self._skipped_text, self._passed_over_text)))

    @property
    def _passed_over_text(self) -> str:
        if not self.passed_over:
            return ""
        endings = ", ".join(f"{ending} ×{n}" for ending, n in self.passed_over)
        return f"{self.name}: files that are no images by their ending were passed over: {endings}"

    @property
    def _skipped_text(self) -> str:
        if not self.skipped:
            return ""
        told = "; ".join(f"{file}: {why}" for file, why in self.skipped[:_TOLD])
        more = f"; and {len(self.skipped) - _TOLD} more" if len(self.skipped) > _TOLD else ""
        return f"{self.name}: {len(self.skipped)} of {self.n + len(self.skipped)} left out: {told}{more}"

    def name_of(self, index: int) -> str:
        """Name one image for a message: its file, or its number in an npz."""
        return self.files[index] if self.files else f"image {index}"

    def first(self, n: int) -> "ImageSet":
        """Take the first `n` images, or all where there are fewer."""
        n = min(n, self.n)
        labels = None if self.labels is None else self.labels[:n]
        truth = self.truth and self.truth.taken(range(n))
        return replace(self, n=n, labels=labels, hashes=self.hashes[:n], files=self.files[:n], truth=truth)

    def spread(self, n: int) -> "ImageSet":
        """Take `n` images at equal distances, or all where there are fewer: a folder is sorted by class."""
        return self if n >= self.n else self.take([index * self.n // n for index in range(n)])

    def take(self, at: Sequence[int]) -> "ImageSet":
        """Take the images of these indices, in this order."""
        return replace(
            self,
            n=len(at),
            labels=None if self.labels is None else self.labels[list(at)],
            hashes=tuple(self.hashes[index] for index in at),
            files=tuple(self.files[index] for index in at) if self.files else (),
            load=lambda index: self.load(at[index]),
            truth=self.truth and self.truth.taken(at),
        )

    def parts(self, size: int) -> Iterator["ImageSet"]:
        """Return the set as consecutive parts of `size` images; the last may be smaller."""
        for begin in range(0, self.n, size):
            end = min(begin + size, self.n)
            yield replace(
                self,
                n=end - begin,
                labels=None if self.labels is None else self.labels[begin:end],
                hashes=self.hashes[begin:end],
                files=self.files[begin:end],
                load=functools.partial(self._load_from, begin),
                truth=self.truth and self.truth.taken(range(begin, end)),
            )

    def batches(self, preprocess: Preprocess | BareInput, size: int, crops: Crops = 1) -> Iterator[np.ndarray]:
        """Return the preprocessed images in order, `size` at a time; the last batch may be smaller.

        Files are decoded on a few threads, a bounded number of images ahead.

        Args:
            preprocess: How images become tensors.
            size: Images in a batch.
            crops: Rows of each image, one after the other: its center, or ten in the order of `tensors.ten_crops`.

        Returns:
            (images · crops, C, H, W) float32, batch by batch.

        Raises:
            InputError: An image cannot be read or does not fit; or there is no room for ten crops.
        """
        if crops == 10:
            expect_room(preprocess)
        with closing(self._tensors(preprocess, crops)) as tensors:
            while batch := list(islice(tensors, size)):
                yield np.stack(batch) if crops == 1 else np.concatenate(batch)

    def overlap(self, other: "ImageSet") -> int:
        """Count the images that are in both sets, by sha256."""
        return len(set(self.hashes) & set(other.hashes))

    def pixel_hashes(self) -> tuple[str, ...]:
        """Hash the decoded pixels of each image: files of other bytes may hold the same ones.

        `batches` notes them on its way, so that files are decoded here only where they were not yet.

        Raises:
            InputError: An image cannot be read.
        """
        if not self.files:  # hashes are of pixels already
            return self.hashes
        missing = tuple({digest: at for at, digest in enumerate(self.hashes) if digest not in self.decoded}.values())
        with closing(in_order(lambda at: self._note(missing[at], self.load(missing[at])), len(missing))) as noted:
            for _ in noted:
                pass
        return tuple(self.decoded[digest] for digest in self.hashes)

    def _note(self, index: int, pixels: np.ndarray) -> None:
        """Note the hash of a file's pixels; to hash 224×224 px takes a tenth of the time that decoding a JPEG does."""
        if self.hashes[index] not in self.decoded:
            digest = hashlib.sha256(repr(pixels.shape).encode())
            digest.update(np.ascontiguousarray(pixels).data)
            self.decoded[self.hashes[index]] = digest.hexdigest()

    def _load_from(self, begin: int, index: int) -> np.ndarray:
        return self.load(begin + index)

    def _tensors(self, preprocess: Preprocess | BareInput, crops: Crops) -> Generator[np.ndarray, None, None]:
        def work(index: int) -> np.ndarray:
            return self._tensor(index, preprocess, crops)

        if self.files:  # pixels in memory are prepared faster than handed over: 28×28 px in 18 µs, on threads in 38
            with closing(in_order(work, self.n)) as done:
                yield from done
        else:
            yield from map(work, range(self.n))

    def _tensor(self, index: int, preprocess: Preprocess | BareInput, crops: Crops) -> np.ndarray:
        pixels = self.load(index)
        if self.files:
            self._note(index, pixels)
        if isinstance(preprocess, BareInput):
            return pixels
        try:
            return to_tensors(pixels, preprocess) if crops == 1 else ten_crops(pixels, preprocess)
        except InputError as error:
            raise InputError(f"{self.name}: {self.name_of(index)}: {error}", hint=error.hint) from error


def of_pixels(name: str, pixels: np.ndarray, labels: np.ndarray | None) -> ImageSet:
    """Make a set of images that are in memory."""
    hashes = tuple(hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() for image in pixels)
    return ImageSet(
        name=name, n=len(pixels), labels=labels, hashes=hashes, load=lambda index: np.asarray(pixels[index])
    )
