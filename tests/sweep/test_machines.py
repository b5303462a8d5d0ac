"""Turns on a machine: what is timed has it alone; devices that are one machine share its turns."""

import socket
import threading
import time

import pytest

from deploy_kit.records.artifacts import Device
from deploy_kit.sweep.machines import Machine, machine_key


def test_nothing_is_timed_beside_other_work() -> None:
    machine, inside, seen = Machine(), list[str](), list[tuple[str, ...]]()

    def work(kind: str) -> None:
        for _ in range(20):
            with machine.measuring() if kind == "measure" else machine.computing():
                inside.append(kind)
                seen.append(tuple(inside))
                time.sleep(0.0005)
                inside.remove(kind)

    threads = [threading.Thread(target=work, args=(kind,)) for kind in ("measure", "measure", "compute", "compute")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert all(len(kinds) == 1 for kinds in seen if "measure" in kinds)
    assert any(kinds == ("compute", "compute") for kinds in seen)  # what computes shares the machine


@pytest.mark.parametrize("address", ["127.0.0.1:2222", "user@localhost", "[::1]:22", "u@127.0.0.1"])
def test_this_machine_is_known_through_ssh(address: str) -> None:
    if address.startswith("[") and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    assert machine_key(Device(name="x", link="ssh", address=address)) == "local"


def test_accelerators_of_one_board_are_one_machine_and_boards_are_not() -> None:
    def key(address: str, accelerator: str) -> str:
        return machine_key(Device(name="x", link="ssh", address=address, accelerator=accelerator))

    assert key("192.0.2.7:22", "cuda:0") == key("user@192.0.2.7", "cpu") != key("192.0.2.8", "cpu")
    assert machine_key(Device(name="l", link="local", accelerator="cuda:0")) == "local"
