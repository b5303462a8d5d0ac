"""Ray's workers: results in order, whoever computes them and whoever dies, and nothing left behind."""

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from planted_faults import GROUPS, Planted, planted, planted_once
from tiny_densenet import TINY_PREPROCESS, save_images, save_tiny, tiny_model

from deploy_kit.base import lazy
from deploy_kit.base.errors import DeviceError, InputError, RequestError
from deploy_kit.context import Context
from deploy_kit.devices import engine_parts
from deploy_kit.devices.engine_parts import OutputsRequest
from deploy_kit.devices.inference import InferenceTarget
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSource, open_set
from deploy_kit.parallel import ONE_PROCESS, R, T, Workers, ray_workers
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import int8_portable
from deploy_kit.recipe import SourceTable, Variant
from deploy_kit.records.mixed_precision import Trial
from deploy_kit.stages import check, quantize, reference
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

__all__ = ["planted", "planted_once"]  # fixtures


class OneDies:
    """Workers of which the first to begin an item is killed before it can answer; what they were asked is noted."""

    def __init__(self, workers: Workers, mark: Path) -> None:
        """Take the workers, and a file that is there once one was killed."""
        self.n, self.place, self.asked = workers.n, workers.place, list[object]()
        self._workers, self.mark = workers, mark

    def map(self, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        mark, asked = self.mark, list(items)

        def work_or_die(item: T) -> R:
            if not mark.exists():
                mark.write_text("")
                os.kill(os.getpid(), signal.SIGKILL)
            return work(item)

        self.asked += asked
        return self._workers.map(work_or_die, asked)


def test_an_unknown_place_is_refused() -> None:
    for place in ("rays", "dask://x", "ray://", "ray://host", "ray://host:x"):
        with (
            pytest.raises(RequestError, match="expected 'ray"),
            ray_workers.open_workers(place, print),
        ):
            pass


def test_no_place_is_this_process() -> None:
    with ray_workers.open_workers("", print) as workers:
        assert workers is ONE_PROCESS
        assert list(workers.map(abs, [-1, 2])) == [1, 2]


def test_without_ray_the_same_is_computed_here_and_a_line_says_what_it_would_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_workers, "present", lambda package: False)
    said = list[str]()

    with ray_workers.open_workers("ray", said.append) as workers:
        assert workers is ONE_PROCESS

    assert said[0].startswith("Ray is not installed (pip install 'deploykit[ray]')")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of its own, to see what Ray writes there."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        yield folder


@pytest.fixture(scope="module")
def workers(home: Path) -> Iterator[Workers]:
    if not lazy.present("ray"):
        pytest.skip(lazy.install_line("ray"))
    with ray_workers.open_workers("ray", print, n=2) as opened:
        yield opened


@pytest.mark.slow
def test_results_come_in_order_from_other_processes(workers: Workers) -> None:
    assert workers.n == 2
    assert list(workers.map(abs, range(-20, 0))) == list(range(20, 0, -1))
    assert os.getpid() not in set(workers.map(lambda _: os.getpid(), range(8)))


@pytest.mark.slow
def test_an_error_comes_back_as_what_it_is(workers: Workers) -> None:
    def refuse(text: str) -> None:
        raise InputError(text, hint="another one")

    with pytest.raises(InputError, match="no such thing") as caught:
        list(workers.map(refuse, ["no such thing"]))

    assert caught.value.hint == "another one"


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_item_alone(workers: Workers, tmp_path: Path) -> None:
    def die_once(job: tuple[str, int]) -> int:
        mark = Path(job[0])
        if job[1] == 3 and not mark.exists():
            mark.write_text("")
            os.kill(os.getpid(), signal.SIGKILL)
        return job[1] * job[1]

    jobs = [(str(tmp_path / "died"), n) for n in range(8)]

    assert list(workers.map(die_once, jobs)) == [n * n for n in range(8)]
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_fault_of_the_worker_itself_is_told(workers: Workers) -> None:
    with pytest.raises(DeviceError, match="a worker cannot do it: ZeroDivisionError"):
        list(workers.map(lambda n: 1 // n, [0]))


@pytest.mark.slow
def test_an_item_that_kills_every_worker_ends_with_its_cause(workers: Workers) -> None:
    with pytest.raises(DeviceError, match="a worker was lost 4 times"):
        list(workers.map(lambda _: os.kill(os.getpid(), signal.SIGKILL), [1]))


@pytest.mark.slow
def test_logits_of_workers_are_those_of_one_process_byte_by_byte(
    workers: Workers, tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "_PART", 16)
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "net.safetensors", tiny_model())))
    images = open_set(str(save_images(tmp_path / "check.npz", 70)), TINY_PREPROCESS)

    def logits(name: str, on: Workers) -> np.ndarray:
        context = Context(store=Store(tmp_path / name), connection=connection, workers=on)
        record, _ = reference.run(source, TINY_PREPROCESS, context, images=images)
        with np.load(context.store.root / record.path) as data:
            return data["logits"]

    assert logits("ray", workers).tobytes() == logits("here", ONE_PROCESS).tobytes()


@pytest.mark.slow
def test_an_engine_checked_on_workers_gives_the_same_bytes_though_one_is_killed(
    workers: Workers, line: "Line", tmp_path: Path, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_parts, "SIZE", 32)  # on this side alone: parts come ready to the workers
    engine = line.built("int8", "onnxruntime")
    images = str(save_images(tmp_path / "check.npz", 150))

    def outputs(name: str, on: Workers) -> bytes:
        store = Store(shutil.copytree(line.snapshot, tmp_path / name))
        context = Context(store=store, connection=connection)
        open_images = open_set(images, TINY_PREPROCESS)
        logits, _ = reference.run(line.recipe.source, TINY_PREPROCESS, context, images=open_images)
        run = dataclasses.replace(context, workers=on)
        check.run(engine, line.recipe.check, run, reference=logits, images=ImageSource(name=images))
        (file,) = store.root.glob("outputs/*/outputs.npy")
        return file.read_bytes()

    mortal = OneDies(workers, tmp_path / "died")
    assert outputs("ray", mortal) == outputs("here", ONE_PROCESS)
    parts = [len(asked.hashes) for asked in mortal.asked if isinstance(asked, OutputsRequest)]
    assert parts == [32, 32, 32, 32, 22]
    assert mortal.mark.exists()


@pytest.mark.slow
def test_calibration_on_workers_gives_the_same_statistics_though_one_is_killed(
    workers: Workers, line: "Line", tmp_path: Path
) -> None:
    images = save_images(tmp_path / "calibration.npz", 150)
    source = line.store.path(line.lean)

    def statistics(name: str, on: Workers) -> bytes:
        calibration = schemes.stream(source, open_set(str(images), TINY_PREPROCESS), TINY_PREPROCESS)
        context = dataclasses.replace(calibration.context, store=tmp_path / name, workers=lambda: on)
        options = int8_portable.Int8PortableOptions(method="mse", rounding="nearest", fit_biases=False)
        calibration = dataclasses.replace(calibration, context=context)
        int8_portable.SCHEME.apply(source, tmp_path / f"{name}.onnx", options, calibration)
        (file,) = (tmp_path / name).glob("calibrate/*/statistics.npz")
        return file.read_bytes()

    mortal = OneDies(workers, tmp_path / "died")
    assert statistics("ray", mortal) == statistics("here", ONE_PROCESS)
    assert mortal.mark.exists()


@pytest.mark.slow
def test_the_quantize_stage_opens_the_same_workers_in_its_own_process(
    workers: Workers, line: "Line", tmp_path: Path, connection: Connection
) -> None:
    variant = Variant(name="int8", scheme="int8_portable", options={"method": "mse", "rounding": "nearest"})
    images, said = ImageSource(name=str(save_images(tmp_path / "calibration.npz", 70))), list[str]()

    def quantized(name: str, on: Workers) -> str:
        store = Store(shutil.copytree(line.snapshot, tmp_path / name))
        context = Context(
            store=store, connection=connection, workers=on, on_progress=lambda event: said.append(event.text)
        )
        return quantize.run(line.lean, variant, context, calibration=images)[0].sha256

    assert quantized("ray", workers) == quantized("here", ONE_PROCESS)
    assert "ranges: 66 of 70 images were observed on 2 workers, the others in this process" in said


@pytest.mark.slow
@pytest.mark.parametrize("size", [512, 32])
def test_trials_on_workers_are_those_of_one_process_though_one_is_killed(
    workers: Workers,
    planted: Planted,
    tmp_path: Path,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr(engine_parts, "SIZE", size)  # 100 images are one part, or four
    wanted = [(group,) for group in GROUPS[:3]]

    def trials(name: str, on: Workers) -> list[Trial]:
        store = Store(shutil.copytree(planted.store.root, tmp_path / name))
        own = dataclasses.replace(planted, store=store).trials(engine="onnxruntime")
        own.context, own.host = Context(store=store, connection=connection, workers=on), connection
        with own:
            first = own.trial(wanted[1])
            found = list(own.trials(wanted, n=100))
            assert own.made == 4
            assert list(own.trials(wanted, n=100)) == found
        return [first, *found]

    mortal = OneDies(workers, tmp_path / "died")
    assert trials("ray", mortal) == trials("here", ONE_PROCESS)
    assert mortal.mark.exists()
    assert not list((tmp_path / "ray").glob(".new-*"))


def test_a_worker_with_another_processor_engine_or_settings_says_so(line: "Line", connection: Connection) -> None:
    engine, here = line.built("int8", "onnxruntime"), connection.environment
    images = open_set(line.recipe.check.images, TINY_PREPROCESS)
    target = InferenceTarget(engine="onnxruntime", path=line.store.path(engine), options={})
    (request,) = engine_parts.requests(
        target, images, TINY_PREPROCESS, label=engine.label, batch=1, processor=(here.cpu, here.isa),
        settings=(("threads", "77"),),
    )  # fmt: skip

    with pytest.raises(DeviceError, match="a worker has other processor than the machine that checks"):
        engine_parts.answer(dataclasses.replace(request, processor=("Another CPU", ())))
    with pytest.raises(InputError, match="a worker sees another file here"):
        engine_parts.answer(dataclasses.replace(request, sha256="0" * 64))
    with pytest.raises(DeviceError, match="a worker has other settings than the machine that checks"):
        engine_parts.answer(request)


@pytest.mark.slow
def test_a_worker_that_sees_other_images_says_so(workers: Workers, tmp_path: Path, connection: Connection) -> None:
    source = SourceTable(checkpoint=str(save_tiny(tmp_path / "net.safetensors", tiny_model())))
    images = open_set(str(save_images(tmp_path / "check.npz", 8)), TINY_PREPROCESS)
    save_images(tmp_path / "check.npz", 8, seed=5)

    with pytest.raises(InputError, match="a worker sees other images") as caught:
        context = Context(store=Store(tmp_path / "store"), connection=connection, workers=workers)
        reference.run(source, TINY_PREPROCESS, context, images=images)

    assert caught.value.hint.startswith("put the same images at the same path")


@pytest.mark.slow
def test_other_versions_are_refused(workers: Workers) -> None:
    import ray

    with pytest.raises(DeviceError, match=r"other versions than here: torch .* and 0\.1"):
        ray_workers._verify_versions(ray, {"torch": "0.1"})


@pytest.mark.slow
def test_ray_can_be_opened_twice_in_one_process_and_leaves_no_process(home: Path) -> None:
    if not lazy.present("ray"):
        pytest.skip(lazy.install_line("ray"))
    import ray

    ray.shutdown()  # what the tests above have open
    ours = signal.getsignal(signal.SIGTERM)
    for _ in range(2):
        with ray_workers.open_workers("ray", print, n=1) as opened:
            assert list(opened.map(abs, [-1])) == [1]
        assert not ray.is_initialized()
        assert signal.getsignal(signal.SIGTERM) is ours


@pytest.mark.slow
def test_nothing_is_written_into_the_home(home: Path) -> None:
    if not lazy.present("ray"):
        pytest.skip(lazy.install_line("ray"))

    assert list(home.rglob("*")) == []
