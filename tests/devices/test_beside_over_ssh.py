"""``bench --beside`` over a real SSH connection: one table, and a board that is lost in the middle of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Said, deploykit
from ssh_server import Server

from deploy_kit.devices import named_devices
from deploy_kit.measure import race
from deploy_kit.records.artifacts import Device
from deploy_kit.records.measurements import Bench
from deploy_kit.store import Store

pytest_plugins = ["tiny_line"]

FAST = ("--rounds", "6", "--runs", "3", "--warmup", "10ms", "--allow-invalid", "--quiet")


@pytest.fixture
def named(board: Device) -> str:
    """The device, under the name 'board'."""
    named_devices.add_device(board.name, {"link": f"ssh://{board.address}", "python": board.python})
    return board.name


def side_by_side(kept: Store, *more: str) -> Said:
    arguments = ("--all", "--device", "local", "--beside", "board", "--baseline", "fp32 · onnxruntime")
    return deploykit("bench", *arguments, *more, *FAST, "--store", kept.root)


def test_this_machine_and_a_board_stand_in_one_table_each_with_samples_of_its_own(named: str, kept: Store) -> None:
    measured = side_by_side(kept, "--json")
    shown = side_by_side(kept)  # from the store

    assert (measured.code, shown.code) == (0, 0), measured.err + shown.err
    record = json.loads(measured.out)
    here, there = record["measurements"], record["beside"]["board"]["measurements"]
    assert [m["artifact"] for m in here] == [m["artifact"] for m in there]
    assert {tuple(m["samples_ms"]) for m in here}.isdisjoint(tuple(m["samples_ms"]) for m in there)
    rows = [line.split() for line in shown.out.splitlines() if line.startswith(("local ", "board "))]
    assert [(row[0], row[1], row[4], row[5]) for row in rows if len(row) > 5] == [
        (device, variant, "1", "18") for device in ("local", "board") for variant in ("fp32", "int8")
    ]


def cut_in(monkeypatch: pytest.MonkeyPatch, server: Server, number: int) -> None:
    """Pull the cable before round `number` of the board's race; this machine's goes undisturbed."""
    real: Callable[..., None] = race._Race._run_round
    begun = {"rounds": 0}

    def cutting(self: race._Race, drawn: list[object]) -> None:
        if self._connection.device.name == "board":
            begun["rounds"] += 1
            if begun["rounds"] == number:
                server.cut()
        real(self, drawn)

    monkeypatch.setattr(race._Race, "_run_round", cutting)


def test_a_board_that_is_lost_in_the_middle_keeps_its_rounds_and_the_same_line_goes_on_from_there(
    named: str, kept: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        cut_in(patch, server, 4)
        said = side_by_side(kept, "--json")
    again = side_by_side(kept, "--json")

    lost = "the device was lost in round 4 of 6: device 'board': the connection was lost"
    assert (said.code, said.error) == (4, f"error: {lost}; the rounds before it are kept")
    first, second = json.loads(said.out), json.loads(again.out)
    assert samples(first) == [18, 18]
    assert samples(first["beside"]["board"]) == [9, 9]
    assert (again.code, samples(second["beside"]["board"])) == (0, [18, 18])
    assert [m["resumed_at"] for m in second["beside"]["board"]["measurements"]] == [[3], [3]]
    assert second["measurements"] == first["measurements"]


def samples(record: dict[str, Any]) -> list[int]:
    return [len(m["samples_ms"]) for m in record["measurements"]]


def test_a_board_that_is_lost_at_once_leaves_this_machines_numbers(
    named: str, kept: Store, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_in(monkeypatch, server, 1)

    said = side_by_side(kept)

    assert (said.code, said.error) == (4, "error: device 'board': the connection was lost")
    assert said.out.count("not run: device 'board': the connection was lost") == 2
    assert len(kept.all(Bench, "bench")) == 1


def test_a_wrong_host_key_is_refused_before_any_work(named: str, kept: Store, server: Server, tmp_path: Path) -> None:
    server.known_hosts.write_text("")

    said = side_by_side(kept)

    assert (said.code, said.out) == (4, "")
    assert said.error.startswith(
        f"error: device 'board': the host key of '[127.0.0.1]:{server.port}' is not known here"
    )
    assert kept.all(Bench, "bench") == []
