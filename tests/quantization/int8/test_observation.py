"""One pass over the images: what it says, where it stops, and what is kept, taken again only where all is the same."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, batches

from deploy_kit.base.errors import QuantizeError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.quantization.int8 import observation
from deploy_kit.quantization.int8.observation import CalibrationContext, ImageStream, Observed
from deploy_kit.quantization.int8.range_selection import RangeMethod, RangeTarget
from deploy_kit.quantization.ranges.reduced_graph import ObservedActivations
from deploy_kit.store import Store

BY_EXTREMES = RangeMethod()
TARGET = (RangeTarget(name="conv3", useful=None, by_channel=True),)


@pytest.fixture
def sketch() -> Sketch:
    made = Sketch(pixels=(6, 6))
    made.node("Relu", made.conv("x", 4, 3, pad=1), output="y")
    return made


def proto(sketch: Sketch) -> onnx.ModelProto:
    return ir.serde.serialize_model(sketch.model("y"))


class Desk:
    """Observes, counting the images that were sent and noting what was said."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.sent = folder, 0
        self.notes: list[tuple[str, str]] = []
        self.events: list[ProgressEvent] = []

    def __call__(
        self, sketch: Sketch, x: np.ndarray, ranging: RangeMethod = BY_EXTREMES, digest: str = "these images"
    ) -> Observed:
        def stream() -> Iterator[np.ndarray]:
            for part in batches(x):
                self.sent += len(part)
                yield part

        self.sent = 0
        context = CalibrationContext(
            digest=digest,
            store=self.folder,
            on_progress=self.events.append,
            note=lambda what, said: self.notes.append((what, said)),
        )
        histograms = ("conv3",) if ranging.by_histogram else ()
        wanted = ObservedActivations(names=("conv3", "x"), means=("y",), histograms=histograms)
        return observation.observe_images(
            proto(sketch), wanted, TARGET, ranging, ImageStream(n=len(x), batches=stream, context=context)
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "store")


def expect_same(one: Observed, two: Observed) -> None:
    for name, channels in one.channels.items():
        for part in ("low", "high", "mean", "std"):
            np.testing.assert_array_equal(getattr(channels, part), getattr(two.channels[name], part))
    np.testing.assert_array_equal(one.means["y"], two.means["y"])
    assert one.histograms.keys() == two.histograms.keys()
    for name, histogram in one.histograms.items():
        for part, value in vars(histogram).items():
            np.testing.assert_array_equal(value, getattr(two.histograms[name], part))


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_a_second_pass_is_not_made(method: str, desk: Desk, sketch: Sketch) -> None:
    x, ranging = sketch.images(8), RangeMethod(method=method)
    first = desk(sketch, x, ranging)
    assert desk.sent == 8

    second = desk(sketch, x, ranging)

    assert desk.sent == 0
    expect_same(first, second)


def test_one_histogram_serves_all_methods(desk: Desk, sketch: Sketch) -> None:
    x = sketch.images(8)
    first = desk(sketch, x, RangeMethod(method="entropy"))

    for ranging in (
        RangeMethod(method="mse"),
        RangeMethod(method="percentile", percentile=99.0),
        RangeMethod(method="entropy"),
    ):
        second = desk(sketch, x, ranging)
        assert desk.sent == 0
        expect_same(first, second)
    assert desk.notes[-1][0] == "statistics"
    assert desk.notes[-1][1].startswith("kept of 8 images observed for entropy (")


def test_extremes_are_kept_apart_from_histograms(desk: Desk, sketch: Sketch) -> None:
    desk(sketch, sketch.images(8), RangeMethod(method="mse"))

    desk(sketch, sketch.images(8))

    assert desk.sent == 8


@pytest.mark.parametrize("what", ["weights", "digest", "number"])
def test_whatever_differs_is_observed_anew(what: str, desk: Desk, sketch: Sketch) -> None:
    """The digest holds the images, their order and their preprocessing."""
    x = sketch.images(8)
    desk(sketch, x)
    if what == "weights":
        name = next(key for key, value in sketch.weights.items() if value.ndim == 4)
        sketch.weights[name] = sketch.weights[name] * np.float32(1.001)

    desk(sketch, x[:7] if what == "number" else x, digest="others" if what == "digest" else "these images")

    assert desk.sent in (7, 8)


def damage_file(home: Path) -> None:
    data = bytearray((home / "statistics.npz").read_bytes())
    data[len(data) // 2] ^= 1
    (home / "statistics.npz").write_bytes(data)


def swap_record(home: Path) -> None:
    record = json.loads((home / "record.json").read_text())
    (home / "record.json").write_text(json.dumps(record | {"sha256": "0" * 64}))


def remove_file(home: Path) -> None:
    (home / "statistics.npz").unlink()


def cut_record(home: Path) -> None:
    (home / "record.json").write_text("{")


@pytest.mark.parametrize("damage", [damage_file, swap_record, remove_file, cut_record])
def test_what_is_damaged_is_made_anew_and_whole(damage: Callable[[Path], None], desk: Desk, sketch: Sketch) -> None:
    first = desk(sketch, sketch.images(8))
    (home,) = (desk.folder / observation.STAGE).iterdir()
    damage(home)

    second = desk(sketch, sketch.images(8))
    assert desk.sent == 8
    third = desk(sketch, sketch.images(8))

    assert desk.sent == 0
    expect_same(first, second)
    expect_same(first, third)


def test_a_pass_that_fails_leaves_nothing(desk: Desk, sketch: Sketch) -> None:
    x = sketch.images(8)
    x[5, 0, 0, 0] = np.nan

    with pytest.raises(QuantizeError, match="calibration: activation 'conv3' is not finite on these images"):
        desk(sketch, x, RangeMethod(method="mse"))

    assert list(Store(desk.folder).root.rglob("*.npz")) == []
    assert desk.sent == 6


def test_without_images_nothing_is_observed(desk: Desk, sketch: Sketch) -> None:
    with pytest.raises(QuantizeError, match="calibration: no images"):
        desk(sketch, sketch.images(8)[:0])


def test_without_a_store_nothing_is_kept(sketch: Sketch, tmp_path: Path) -> None:
    images = ImageStream(n=4, batches=lambda: batches(sketch.images(4)))

    observation.observe_images(proto(sketch), ObservedActivations(names=("conv3",)), TARGET, RangeMethod(), images)

    assert list(tmp_path.iterdir()) == []


def test_record_says_what_the_pass_cost(desk: Desk, sketch: Sketch) -> None:
    desk(sketch, sketch.images(8))

    (home,) = (desk.folder / observation.STAGE).iterdir()
    record = json.loads((home / "record.json").read_text())
    assert record["n_images"] == 8
    assert record["seconds"] >= 0
    assert record["peak_memory_mib"] > 10


def test_an_estimate_comes_before_the_progress(desk: Desk, sketch: Sketch) -> None:
    desk(sketch, sketch.images(8))

    told = [event for event in desk.events if event.text]
    assert told[0].done == 0
    assert told[0].text.startswith("ranges (minmax) of 8 images: about 0 s and ")
    assert told[0].text.endswith(" MiB (estimated)")
    assert [(event.done, event.total) for event in told[1:] if event.done] == [(n, 8) for n in range(2, 9)]


@pytest.mark.parametrize("method", ["minmax", "mse"])
def test_the_estimate_of_memory_counts_what_is_made(method: str, sketch: Sketch) -> None:
    """Four channels of 1,024 bins of 8 bytes; all else is below a MiB in this graph."""
    wanted = ObservedActivations(names=("conv3",), histograms=("conv3",) * 64 if method == "mse" else ())

    found = observation.memory_mib(proto(sketch), wanted)

    assert found == (2 if method == "mse" else 0)


def test_ranges_that_do_not_change_settle_at_the_second_look(desk: Desk, sketch: Sketch) -> None:
    x = np.tile(sketch.images(16), (16, 1, 1, 1))

    found = desk(sketch, x, RangeMethod(method="percentile"))

    assert found.n_images == 256
    assert found.said.startswith("settled after 64 of 256 images; from 128 to 256 images ends moved by 0.")


def test_whoever_wants_it_stops_where_they_have_settled(desk: Desk, sketch: Sketch) -> None:
    x, ranging = np.tile(sketch.images(16), (16, 1, 1, 1)), RangeMethod(method="percentile", settle=True)

    found = desk(sketch, x, ranging)

    assert (desk.sent, found.n_images) == (64, 64)
    assert desk.notes == [("ranges", f"percentile 99.99, {found.said}")]
    assert found.said.startswith("settled after 64 of 256 images")
    desk(sketch, x, ranging)
    assert desk.sent == 0


def test_whoever_would_stop_gets_the_same_whatever_is_kept(desk: Desk, sketch: Sketch) -> None:
    x = np.tile(sketch.images(16), (8, 1, 1, 1))
    desk(sketch, x, RangeMethod(method="percentile"))

    found = desk(sketch, x, RangeMethod(method="percentile", settle=True))

    assert (desk.sent, found.n_images) == (64, 64)


def test_a_whole_pass_serves_whoever_would_stop_but_never_does(desk: Desk, sketch: Sketch) -> None:
    desk(sketch, sketch.images(8))

    desk(sketch, sketch.images(8), RangeMethod(settle=True))

    assert desk.sent == 0


def test_a_pass_that_stopped_does_not_serve_others(desk: Desk, sketch: Sketch) -> None:
    x = np.tile(sketch.images(16), (8, 1, 1, 1))
    desk(sketch, x, RangeMethod(method="percentile", settle=True))

    for ranging in (RangeMethod(method="mse", settle=True), RangeMethod(method="percentile")):
        desk(sketch, x, ranging)
        assert desk.sent > 0


def test_ranges_that_go_on_growing_do_not_settle(desk: Desk, sketch: Sketch) -> None:
    x = sketch.images(128) * np.linspace(1, 8, 128, dtype=np.float32).reshape(-1, 1, 1, 1)

    found = desk(sketch, x, RangeMethod(method="mse", settle=True))

    assert found.n_images == 128
    assert found.said.startswith("not settled after 128 images; from 64 to 128 images ends moved by ")


def test_extremes_never_settle_and_say_how_they_moved(desk: Desk, sketch: Sketch) -> None:
    x = np.tile(sketch.images(16), (8, 1, 1, 1))

    found = desk(sketch, x, RangeMethod(settle=True))

    assert found.n_images == 128
    assert found.said == "from 64 to 128 images ends moved by 0.00% (median) and 0.00% (95th percentile)"


def test_what_is_no_doubling_settles_nothing(desk: Desk, sketch: Sketch) -> None:
    x = sketch.images(65) * np.linspace(1, 8, 65, dtype=np.float32).reshape(-1, 1, 1, 1)

    found = desk(sketch, x, RangeMethod(method="percentile"))

    assert found.said.startswith("not settled after 65 images; from 64 to 65 images ends moved by ")


def test_a_large_batch_is_looked_at_when_its_number_has_doubled() -> None:
    """Looks at 100, 200 and 400 images: 300 is no doubling."""
    sketch = Sketch(pixels=(6, 6), batch="N")
    sketch.node("Relu", sketch.conv("x", 4, 3, pad=1), output="y")
    x, noted = np.tile(sketch.images(20), (20, 1, 1, 1)), list[str]()
    x[:200] *= 2  # the first doubling moves nothing, so it would have settled there

    found = observation.observe_images(
        proto(sketch),
        ObservedActivations(names=("conv3", "x"), means=("y",), histograms=("conv3",)),
        TARGET,
        RangeMethod(method="percentile"),
        ImageStream(
            n=400,
            batches=lambda: iter(np.split(x, 4)),
            context=CalibrationContext(note=lambda _, said: noted.append(said)),
        ),
    )

    assert found.said.startswith("settled after 200 of 400 images; from 200 to 400 images ends moved by ")
    assert noted == [f"percentile 99.99, {found.said}"]


def test_what_comes_after_the_last_doubling_is_looked_at_too(desk: Desk, sketch: Sketch) -> None:
    found = desk(sketch, sketch.images(100))

    assert found.said.startswith("from 64 to 100 images ends moved by ")
