"""A sweep over this machine and one behind SSH, killed at three moments, ends as if nothing had been."""

import glob
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from kill_anywhere import read_all
from small_sweeps import small_sweep
from ssh_server import Server

from deploy_kit import sweep as sweeps
from deploy_kit.recipe.grid import load_grid
from deploy_kit.store import Store

pytestmark = pytest.mark.slow
KILLS = 3


def test_24_cells_on_two_devices_survive_three_kills(server: Server, tmp_path: Path) -> None:
    devices = {"board": {"link": f"ssh://{server.address}", "python": sys.executable}}
    (tmp_path / "devices.yaml").write_text(yaml.safe_dump(devices))
    file = small_sweep(tmp_path, 3, devices=["local", "board"])
    moments, store = random.Random(0), tmp_path / "store"
    line = [sys.executable, "-m", "deploy_kit", "sweep", str(file), "--store", str(store), "-q"]
    counts = [0]

    for _ in range(KILLS):
        process = subprocess.Popen(line, start_new_session=True, stderr=subprocess.DEVNULL)
        until, enough = time.monotonic() + 60, counts[-1] + moments.randint(1, 8)
        while time.monotonic() < until and len(glob.glob("*/*/record.json", root_dir=store)) < enough:
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        counts.append(read_all(store))  # a damaged record raises
    ended = sweeps.run(load_grid(str(file)), Store(store))
    again = sweeps.run(load_grid(str(file)), Store(store))

    assert [cell.state for cell in ended.cells] == ["done"] * 24
    assert sorted(counts) == counts and counts[-1] > 0
    assert all(stage.reused for cell in again.cells for stage in cell.times)
    assert [cell.row for cell in again.cells] == [cell.row for cell in ended.cells]
    print(f"records after the kills {counts[1:]}; ended in {ended.seconds:.1f} s, again in {again.seconds:.1f} s")  # noqa: T201
