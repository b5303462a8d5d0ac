"""``bench --beside``: several devices in one table, each for itself; what one gave is not lost with another."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Said, deploykit
from emulated_records import MARK, PLAYED, measurement
from stand_ins import PretendLink

from deploy_kit.base.errors import DeviceError, LinkLostError, MissingPackageError, nearest
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Artifact, Device
from deploy_kit.records.measurements import Bench, Environment, NotRun
from deploy_kit.stages import bench
from deploy_kit.store import Store

pytest_plugins = ["tiny_line"]

HERE = environment.describe_machine()
BOARD = dataclasses.replace(HERE, host="Linux 5.15.148-tegra aarch64")
LOST = LinkLostError("device 'orin': the connection was lost", hint="run it again")


class Shop:
    """Devices that answer with benches made up, or fail; it notes which of them were asked to measure.

    Attributes:
        store: Has the engines.
        answers: By name of the device: the milliseconds of fp32 and int8 on a machine, a bench, or an error.
        unreachable: By name, why no connection is had.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.answers: dict[str, Bench | Exception] = {}
        self.unreachable: dict[str, DeviceError] = {}
        self.measured = list[str]()

    def holds(self, name: str, machine: Environment, **ms: float) -> Bench:
        """Let a device measure the engines of the variants named, in so many milliseconds."""
        engines = {one.name: one for one in self.store.all(Artifact, "build")}
        made = [
            dataclasses.replace(measurement(engines[variant].label, time, machine), artifact=engines[variant].sha256)
            for variant, time in ms.items()
        ]
        self.answers[name] = Bench(measurements=tuple(made))
        return Bench(measurements=tuple(made))

    def find(self, name: str) -> Device:
        if name not in {"local", *self.answers, *self.unreachable}:
            raise DeviceError(f"no device is called '{name}'", hint=nearest(name, self.answers))
        return Device(name=name, link="pretended")

    @contextlib.contextmanager
    def connect(self, device: Device) -> Iterator[PretendLink]:
        if device.name in self.unreachable:
            raise self.unreachable[device.name]
        connection = PretendLink(self.folder, {})
        connection.device = device
        yield connection

    def run(self, engines: object, table: object, context: Context, **_: object) -> tuple[Bench, bool]:
        name = context.connection.device.name
        self.measured.append(name)
        answer = self.answers[name]
        if isinstance(answer, Exception):
            raise answer
        return answer, False

    def bench(self, *arguments: str) -> Said:
        """Run the command on two devices."""
        return deploykit(
            "bench", "--all", "--device", "edge", "--beside", "local", *arguments, "--store", self.store.root
        )


@pytest.fixture
def shop(kept: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """An emulated device and this machine, with two engines each."""
    made = Shop(kept, tmp_path)
    made.holds("edge", PLAYED, fp32=80.0, int8=60.0)
    made.holds("local", HERE, fp32=8.0, int8=4.0)
    monkeypatch.setattr(links, "find_device", made.find)
    monkeypatch.setattr(links, "connect_device", made.connect)
    monkeypatch.setattr(bench, "run", made.run)
    return made


def lines(said: Said) -> list[list[str]]:
    """Cut the table's rows into device, engine and what else stands there."""
    rows = [line.split("  ") for line in said.out.splitlines() if line.startswith(("edge  ", "local  "))]
    return [[cell.strip() for cell in row if cell.strip()] for row in rows]


def test_devices_stand_in_one_table_each_with_its_own_times(shop: Shop) -> None:
    said = shop.bench()

    assert said.code == 0, said.err
    assert [(row[0], row[1], row[4]) for row in lines(said)] == [
        ("edge", "fp32 · onnxruntime", "80.000 ms"),
        ("edge", "int8 · onnxruntime", "60.000 ms"),
        ("local", "fp32 · onnxruntime", "8.000 ms"),
        ("local", "int8 · onnxruntime", "4.000 ms"),
    ]
    assert said.out.count("verdict") == 1


def test_emulated_times_are_marked_and_compared_with_nothing(shop: Shop) -> None:
    said = shop.bench("--baseline", "fp32 · onnxruntime")

    assert [row[-1] for row in lines(said)] == [
        MARK,
        MARK,
        "baseline",
        "2.00× faster, CI 2.00–2.00",
    ]
    assert f"note: edge: int8 · onnxruntime: {MARK} (by qemu-aarch64-static)" in said.out


def test_no_ratio_crosses_from_one_device_to_another(shop: Shop) -> None:
    shop.holds("edge", BOARD, int8=60.0)  # a real board that could not run the baseline

    said = shop.bench("--baseline", "fp32 · onnxruntime")

    assert [row[-1] for row in lines(said) if row[0] == "edge" and "int8" in row[1]] == ["measured"]


def test_the_record_has_the_others_beside_it(shop: Shop) -> None:
    said = shop.bench("--json")

    record = json.loads(said.out)
    assert [m["samples_ms"][0] for m in record["measurements"]] == [80.0, 60.0]
    assert list(record["beside"]) == ["local"]
    assert [m["samples_ms"][0] for m in record["beside"]["local"]["measurements"]] == [8.0, 4.0]
    assert [one["request_count"] for one in record["beside"]["local"]["summary"]] == [24, 24]


def test_a_record_of_one_device_has_nothing_beside_it(shop: Shop) -> None:
    said = deploykit("bench", "--all", "--json", "--store", shop.store.root)

    assert "beside" not in json.loads(said.out)


def test_an_unknown_device_is_refused_before_any_work(shop: Shop) -> None:
    said = shop.bench("--beside", "locl")

    assert (said.code, said.error, said.fix) == (4, "error: no device is called 'locl'", "  fix: did you mean 'local'?")
    assert shop.measured == []


def test_a_device_that_cannot_be_reached_is_refused_before_any_work(shop: Shop) -> None:
    shop.unreachable["orin"] = DeviceError("device 'orin': orin:22 refuses the connection", hint="is it on?")

    said = shop.bench("--beside", "orin")

    assert (said.code, said.error) == (4, "error: device 'orin': orin:22 refuses the connection")
    assert shop.measured == []


@pytest.mark.parametrize("beside", [("--beside", "edge"), ("--beside", "edge", "--beside", "edge")])
def test_a_device_beside_itself_is_measured_once_and_told_as_alone(shop: Shop, beside: tuple[str, ...]) -> None:
    said = deploykit("bench", "--all", "--device", "edge", *beside, "--store", shop.store.root)

    assert (said.code, shop.measured) == (0, ["edge"])
    assert said.out.startswith("device  edge\n\nengine ")


def test_a_device_that_is_lost_takes_nothing_from_the_others(shop: Shop) -> None:
    shop.answers["orin"] = LOST

    said = shop.bench("--beside", "orin")

    assert (said.code, said.error, said.fix) == (
        4,
        "error: device 'orin': the connection was lost",
        "  fix: run it again",
    )
    assert [row[4] for row in lines(said)] == ["80.000 ms", "60.000 ms", "8.000 ms", "4.000 ms"]
    assert said.out.count("not run: device 'orin': the connection was lost") == 2


def test_the_record_of_a_device_that_is_lost_says_why(shop: Shop) -> None:
    shop.answers["orin"] = LOST

    record = json.loads(shop.bench("--beside", "orin", "--json").out)

    assert [m["samples_ms"][0] for m in record["measurements"]] == [80.0, 60.0]
    assert [m["samples_ms"][0] for m in record["beside"]["local"]["measurements"]] == [8.0, 4.0]
    assert record["beside"]["orin"]["measurements"] == []
    assert {one["why"] for one in record["beside"]["orin"]["not_run"]} == {"device 'orin': the connection was lost"}


@pytest.mark.parametrize("name", ["edge", "local"])
def test_rounds_of_a_device_that_is_lost_on_the_way_stand_beside_the_others(shop: Shop, name: str) -> None:
    whole = shop.answers[name]
    assert isinstance(whole, Bench)
    cut = (dataclasses.replace(m, stopped="the device was lost in round 3 of 6: gone") for m in whole.measurements)
    shop.answers[name] = Bench(measurements=tuple(cut))

    said = shop.bench()

    assert (said.code, shop.measured) == (4, ["edge", "local"])
    assert said.error == "error: the device was lost in round 3 of 6: gone; the rounds before it are kept"
    assert [row[4] for row in lines(said)] == ["80.000 ms", "60.000 ms", "8.000 ms", "4.000 ms"]


def test_a_package_that_this_machine_lacks_is_told_behind_what_the_device_gave(shop: Shop) -> None:
    shop.answers["local"] = MissingPackageError("engine 'x' needs the package 'x'", hint="pip install x")

    said = shop.bench()

    assert (said.code, said.error, said.fix) == (3, "error: engine 'x' needs the package 'x'", "  fix: pip install x")
    assert "80.000 ms" in said.out


def test_a_device_on_which_nothing_runs_is_named(shop: Shop) -> None:
    why = "no NVIDIA GPU on this machine"
    shop.answers["local"] = Bench(measurements=(), not_run=(NotRun(artifact="", label="fp32 · tensorrt", why=why),))

    said = shop.bench()

    assert (said.code, said.error) == (4, f"error: local: fp32 · tensorrt: not run: {why}")


def test_a_limit_that_another_device_does_not_keep_ends_with_1(shop: Shop) -> None:
    shop.holds("edge", BOARD, fp32=3.0, int8=2.0)

    said = shop.bench("--latency-budget", "5ms", "--percentiles", "50")

    assert said.code == 1, said.err
    assert "limit not kept: local: fp32 · onnxruntime: p50 8 ms, at most 5 ms asked for" in said.err
    assert "edge" not in said.err


def test_an_invalid_measurement_of_another_device_ends_with_6_and_names_it(shop: Shop) -> None:
    whole = shop.answers["local"]
    assert isinstance(whole, Bench)
    spoiled = dataclasses.replace(whole.measurements[0], invalid=("the clock fell by 20 %",))
    shop.answers["local"] = Bench(measurements=(spoiled,))

    said = shop.bench()

    assert (said.code, said.error) == (6, "error: local: fp32 · onnxruntime: the clock fell by 20 %")
