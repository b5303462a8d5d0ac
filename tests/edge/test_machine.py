"""The emulated device itself: what it is, what it knows of itself, and that nothing of it is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import edge_arm as arm
import edge_machine as machine
import pytest
from edge_machine import Served

from deploy_kit.devices.isolate import Child
from deploy_kit.recipe.targets import narrow_sums


def on(edge: Served, command: str) -> str:
    done = subprocess.run([*edge.ssh, command], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def environment(edge_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a worker on the device says of it."""
    with arm.device_worker(edge_root, tmp_path_factory.mktemp("shown")) as worker:
        return worker.ask("environment", "the device")["environment"]


def test_it_is_a_64_bit_arm_machine(served_edge: Served) -> None:
    assert on(served_edge, "uname -m; id -un") == "aarch64\nedge"


def test_it_has_no_more_than_a_worker_needs(served_edge: Served) -> None:
    names = "'numpy', 'onnxruntime', 'onnx', 'yaml', 'PIL', 'torch'"
    script = f"from importlib import util; print(*[name for name in ({names}) if util.find_spec(name)])"

    assert on(served_edge, f'python3 -c "{script}"') == "numpy onnxruntime"


def test_nothing_can_be_written_into_its_root(served_edge: Served) -> None:
    assert on(served_edge, "touch /opt/file 2>&1 || true").endswith("cannot touch '/opt/file': Read-only file system")


def test_its_worker_knows_that_it_is_emulated(environment: dict[str, object]) -> None:
    assert environment["emulated"] == "qemu-aarch64-static"


def test_its_worker_does_not_take_the_hosts_processor_for_its_own(environment: dict[str, object]) -> None:
    assert set(environment["isa"]) == {"asimddp", "sve", "i8mm", "bf16"}
    assert str(environment["cpu"]).startswith("aarch64 on ")
    assert environment["clock_mhz"] == 0


def test_its_int8_weights_may_have_8_bits(environment: dict[str, object]) -> None:
    assert not narrow_sums(tuple(environment["isa"]))


def test_a_processor_without_dot_product_does_not_claim_it(
    edge_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QEMU_CPU", "cortex-a53")

    with arm.device_worker(edge_root, tmp_path) as worker:
        assert worker.ask("environment", "the device")["environment"]["isa"] == []


def test_this_machine_is_not_emulated() -> None:
    with Child() as worker:
        assert worker.ask("environment", "this machine")["environment"]["emulated"] == ""


def test_a_step_that_fails_gives_its_last_words_in_one_line() -> None:
    words = ("sh", "-c", "echo first; echo 'E: no mirror'; echo; echo gone; exit 3")

    with pytest.raises(machine.EdgeError) as caught:
        machine._quietly("debootstrap", words)

    assert str(caught.value) == "debootstrap failed with 3: first / E: no mirror / gone"


def test_nothing_is_left_where_its_owner_was_killed(edge_root: Path) -> None:
    here = Path(machine.__file__)
    owner = subprocess.Popen([sys.executable, here, "serve"], stdout=subprocess.PIPE, text=True, cwd=here.parents[2])
    assert owner.stdout is not None
    port = next(line for line in owner.stdout if line.startswith("ssh")).split()[2]
    assert _processes(port)

    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()

    end = time.monotonic() + 20
    while _processes(port) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _processes(port)
    assert str(edge_root) not in Path("/proc/mounts").read_text()


def _processes(port: str) -> list[int]:
    """Give the processes whose command line has this port of sshd."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if f"-oPort={port}".encode() in line and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found
