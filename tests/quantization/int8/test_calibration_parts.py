"""Calibration on workers: the same file as in one process, and what is refused where a worker is not like this one."""

import dataclasses
import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tiny_densenet import TINY_PREPROCESS, save_images

from deploy_kit.base.errors import DeviceError, InputError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.images import open_set
from deploy_kit.parallel import ONE_PROCESS, R, T, Workers
from deploy_kit.quantization import schemes
from deploy_kit.quantization.int8 import calibration_parts
from deploy_kit.quantization.int8.calibration_parts import PartRequest
from deploy_kit.quantization.schemes import int8_portable

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
STATISTICS = "calibrate/*/statistics.npz"


class Elsewhere:
    """Workers whose requests and results travel as bytes; a request is made two ahead, as Ray's are."""

    n, place = 2, ""

    def __init__(self) -> None:
        self.requests: list[PartRequest] = []
        self.graph = b""

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        waiting = list[R]()
        for item in items:
            assert isinstance(item, PartRequest)
            self.requests.append(item)
            self.graph = item.graph.read_bytes()
            waiting.append(pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(item))))))
            if len(waiting) > 2:
                yield waiting.pop(0)
        yield from waiting


@dataclasses.dataclass(frozen=True)
class Desk:
    """Quantizes the tiny network with 70 images."""

    source: Path
    images: str
    folder: Path
    said: list[ProgressEvent] = dataclasses.field(default_factory=list)

    def __call__(self, name: str, workers: Workers, **options: object) -> tuple[bytes, bytes]:
        """Give the bytes of the INT8 file and of the statistics that were kept."""
        calibration = schemes.stream(self.source, open_set(self.images, TINY_PREPROCESS), TINY_PREPROCESS)
        store = self.folder / name
        context = dataclasses.replace(
            calibration.context, store=store, on_progress=self.said.append, workers=lambda: workers
        )
        target = self.folder / f"{name}.onnx"
        chosen = int8_portable.Int8PortableOptions(**{"rounding": "nearest", "fit_biases": False, **options})
        int8_portable.SCHEME.apply(self.source, target, chosen, dataclasses.replace(calibration, context=context))
        (file,) = store.glob(STATISTICS)
        return target.read_bytes(), file.read_bytes()


@pytest.fixture
def desk(line: "Line", tmp_path: Path) -> Desk:
    return Desk(line.store.path(line.lean), str(save_images(tmp_path / "c.npz", 70)), tmp_path)


@pytest.mark.parametrize(
    "options", [{"method": "auto"}, {"method": "minmax"}, {"method": "mse", "settle": True}], ids=str
)
def test_the_file_and_the_statistics_are_those_of_one_process(options: dict[str, object], desk: Desk) -> None:
    workers = Elsewhere()

    assert desk("elsewhere", workers, **options) == desk("here", ONE_PROCESS, **options)

    assert [len(request.images.hashes) for request in workers.requests] == [28, 32, 6]
    told = "ranges: 66 of 70 images were observed on 2 workers, the others in this process"
    assert told in [event.text for event in desk.said]
    assert not list(desk.folder.rglob("graph.onnx"))


def test_what_the_store_has_is_observed_nowhere(desk: Desk) -> None:
    desk("store", ONE_PROCESS, method="mse")
    workers = Elsewhere()

    desk("store", workers, method="mse")

    assert workers.requests == []


def test_a_worker_that_is_not_like_this_process_says_so(desk: Desk) -> None:
    workers, copy = Elsewhere(), desk.folder / "copy.onnx"
    desk("store", workers, method="minmax")
    copy.write_bytes(workers.graph)
    request = dataclasses.replace(workers.requests[0], graph=copy)
    calibration_parts._graph_once.cache_clear()

    with pytest.raises(DeviceError, match="a worker has another processor than the machine that calibrates"):
        calibration_parts.answer(dataclasses.replace(request, processor=("Another CPU", ())))
    with pytest.raises(InputError, match="a worker sees another file here"):
        calibration_parts.answer(dataclasses.replace(request, sha256="0" * 64))
    with pytest.raises(InputError, match="a worker sees other images here"):
        images = dataclasses.replace(request.images, hashes=("0" * 64,))
        calibration_parts.answer(dataclasses.replace(request, images=images))
    assert calibration_parts.answer(request) is not None
