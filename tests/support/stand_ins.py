"""Stand-ins for what a test cannot or need not have: graphs no stage made, and workers without a process."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from gauged import Gauges
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader

from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.devices import links
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Artifact
from deploy_kit.store import Store


def hand_made(store: Store, model: onnx.ModelProto, like: Artifact, name: str) -> Artifact:
    """Put a graph into a store as if a stage had made it: like another artifact, with a file of its own."""
    folder = store.root / "hand-made" / name
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    facts = vars(like) | {
        "name": name,
        "path": f"hand-made/{name}/model.onnx",
        "sha256": sha256_of(folder / "model.onnx"),
        "size_bytes": (folder / "model.onnx").stat().st_size,
    }
    return Artifact(**facts)


def scaled(model: onnx.ModelProto, initializer: str, factor: float) -> onnx.ModelProto:
    """Multiply the one largest number of an initializer by `factor`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    tensor = next(t for t in changed.graph.initializer if t.name == initializer)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[np.abs(values).argmax()] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, initializer))
    return changed


class Calibration(CalibrationDataReader):
    """Images (N, C, H, W) one by one, as ONNX Runtime's own quantizer wants them."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = iter(images[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.images, None)
        return None if image is None else {"input": image}


class PretendWorker:
    """Answers jobs from a table of functions instead of a process of its own, and notes what it was asked."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        self.closed = False

    def __enter__(self) -> "PretendWorker":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True

    def ask(
        self, op: str, about: str, *, on_progress: ProgressCallback = no_progress, **arguments: Any
    ) -> dict[str, Any]:
        assert not self.closed, f"'{op}' asked of a worker that has ended"
        self.asked.append((op, about))
        answer = self.answers[op]
        return answer(arguments | {"about": about}) if callable(answer) else answer


class PretendLink:
    """A connection whose workers are pretended; the first that a bench starts is the one of the gauges."""

    def __init__(self, folder: Path, answers: dict[str, Any]) -> None:
        self.folder = folder
        self.answers = Gauges().answers() | answers
        self.workers: list[PretendWorker] = []
        self.device = links.LOCAL
        self.environment = environment.describe_machine()

    def lacks(self, package: str) -> str:
        return ""

    def worker(self) -> PretendWorker:
        self.workers.append(PretendWorker(self.answers))
        return self.workers[-1]

    def send(self, file: Path, *, keep: bool = False) -> str:
        return str(file)

    @contextmanager
    def outbox(self, folder: Path) -> Iterator[str]:
        yield str(folder)
