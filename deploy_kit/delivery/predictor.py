"""A bundle → names and scores for an image, on any machine that can run its engine."""

import contextlib
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

import numpy as np

from deploy_kit.accuracy.scores import confidence
from deploy_kit.base.errors import InputError
from deploy_kit.delivery import contents, verification
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.devices import inference, links
from deploy_kit.images import files, to_tensors
from deploy_kit.records.artifacts import Device

if TYPE_CHECKING:
    from PIL.Image import Image
    from typing_extensions import Self

ImageLike: TypeAlias = "str | Path | np.ndarray | Image"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest classes of one image, best first.

    Attributes:
        names: Names of the classes; their numbers where the bundle has no names.
        scores: Score of each in 0..1.
        indices: Number of each among the outputs.
    """

    names: tuple[str, ...]
    scores: tuple[float, ...]
    indices: tuple[int, ...]


class Predictor:
    """An engine of a bundle, loaded in a worker process of its own, which ends with `close` or with this object."""

    def __init__(
        self, path: Path, device: Device, *, orientation: Literal["stored", "upright"] | None, **options: Any
    ) -> None:
        """Load the engine; see `deploy_kit.load`."""
        with contextlib.ExitStack() as stack:
            bundle = stack.enter_context(contents.opened(path))
            bundle.expect_whole()
            connection = stack.enter_context(links.connect_device(device))
            verification.expect_version(bundle.manifest, connection)
            target = verification.target_of(bundle)
            target = replace(target, options={**target.options, **options})
            self._engine = stack.enter_context(inference.loaded_engine(connection, target))
            self.manifest: Manifest = bundle.manifest
            self._orientation = orientation or bundle.manifest.orientation
            self._close = weakref.finalize(self, stack.pop_all().close)

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the worker."""
        self._close()

    @overload
    def predict(self, image: "str | Path | Image", top: int = 5) -> Prediction: ...

    @overload
    def predict(self, image: list[Any] | tuple[Any, ...], top: int = 5) -> tuple[Prediction, ...]: ...

    @overload
    def predict(self, image: np.ndarray, top: int = 5) -> Prediction | tuple[Prediction, ...]: ...

    def predict(self, image: Any, top: int = 5) -> Prediction | tuple[Prediction, ...]:
        """Classify one image, or several at once.

        Args:
            image: Path of an image file, a Pillow image, or pixels: uint8 (H, W) or (H, W, 3) in RGB order; or several:
                a list of these, or pixels (n, H, W) or (n, H, W, 3).
            top: Number of classes to return; all where there are fewer.

        Returns:
            What was found; of several images a tuple, in their order.

        Raises:
            InputError: An image cannot be read, or does not fit the network; or there is none.
        """
        several = _are_several(image)
        rows = self.scores(image if several else [image])
        order = np.argsort(-rows, axis=1, kind="stable")[:, : max(1, top)]
        found = tuple(self._prediction(row, ranks) for row, ranks in zip(rows, order, strict=True))
        return found if several else found[0]

    def scores(self, images: Iterable[ImageLike]) -> np.ndarray:
        """Return the scores (n, K) float64 in 0..1 of several images; see `predict`."""
        tensors = [self._tensor(image) for image in images]
        if not tensors:
            raise InputError("predict: expected at least one image, found none")
        logits = self._engine.ask(np.stack(tensors), len(tensors))
        how = self.manifest.scores
        return confidence.to_probabilities(logits, "sigmoid" if how == "none" else "logits", each=how == "sigmoid")

    def _prediction(self, row: np.ndarray, ranks: np.ndarray) -> Prediction:
        classes = self.manifest.classes
        return Prediction(
            names=tuple(classes[k] if classes else str(k) for k in ranks),
            scores=tuple(float(row[k]) for k in ranks),
            indices=tuple(int(k) for k in ranks),
        )

    def _tensor(self, image: ImageLike) -> np.ndarray:
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,)):
                raise InputError(f"expected pixels uint8 (H, W) or (H, W, 3), found {image.dtype} {image.shape}")
            return to_tensors(image, self.manifest.preprocess)
        one = Path(image) if isinstance(image, str) else image
        return to_tensors(files.read_image(one, self._orientation), self.manifest.preprocess)


def _are_several(image: Any) -> bool:
    """Return whether these are images rather than one: pixels whose third axis is not of channels are gray images."""
    if isinstance(image, np.ndarray):
        return image.ndim == 4 or (image.ndim == 3 and image.shape[2] != 3)
    return isinstance(image, (list, tuple))
