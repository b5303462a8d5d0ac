"""Signals at random moments of ``deploykit run``: kill -9 of the command, of a worker, or of all processes at once; and
Ctrl-C, SIGTERM or SIGHUP, each of which ends the command in order.

    python tests/support/kill_anywhere.py --kills 60

After each kill every record of the store is read, the same line is run again, and all that it made is held against a
run that nobody killed, file by file. Nothing temporary and no process may be left. `test_kill_anywhere.py` runs a few.
"""

import argparse
import glob
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

VICTIMS = ("command", "worker", "all")
ENDINGS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
ORDER: tuple[str | signal.Signals, ...] = ("command", "worker", signal.SIGINT, "all", signal.SIGTERM, signal.SIGHUP)
_MEASURES = ("_s", "seconds", "_mib", "record_sha256")
_MEASURED = ("bench", "check")  # latencies differ from run to run, and so do the records that hold them


@dataclass(frozen=True)
class Desk:
    """A recipe, and the folders of one run."""

    recipe: Path
    folder: Path

    @property
    def store(self) -> Path:
        return self.folder / "store"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def start(self) -> "subprocess.Popen[bytes]":
        self.temporary.mkdir(parents=True, exist_ok=True)
        line = ["run", self.recipe, "--store", self.store, "--out", self.folder / "reports", "--allow-invalid"]
        environment = os.environ | {"TMPDIR": str(self.temporary), "DEPLOYKIT_DESK": str(self.folder)}
        command = [sys.executable, "-m", "deploy_kit", *map(str, line)]
        with (self.folder / "said.txt").open("wb") as log:
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def processes(self) -> list[int]:
        """List the processes that this run has started, itself among them, by what is in their environment."""
        mark, found = f"DEPLOYKIT_DESK={self.folder}\0".encode(), []
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def made(self) -> dict[str, str]:
        """Hash every file of the store that does not hold a time."""
        files = (path for path in self.store.rglob("*") if path.is_file() and path.name != "journal.jsonl")
        names = {str(path.relative_to(self.store)): path for path in files}
        return {name: _digest(path) for name, path in names.items() if not name.startswith(_MEASURED)}

    def left(self) -> list[str]:
        """List what is hidden in the store, and temporary files."""
        hidden = [path.name for path in self.store.rglob("*") if path.name.startswith(".")]
        return hidden + [path.name for path in self.temporary.iterdir()]


def _digest(path: Path) -> str:
    """Hash a file; of a record what it says but for seconds and memory, and for its own seal over them."""
    data = path.read_bytes()
    if path.name == "record.json":
        data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if not key.endswith(_MEASURES)}
        return {key: _timeless(one) for key, one in kept.items()}
    return [_timeless(one) for one in value] if isinstance(value, list) else value


def read_all(store: Path) -> int:
    """Read every record of a store that a kill has left, and return their number; a damaged one raises."""
    from deploy_kit.records.passports import unsealed

    records = [store / name for name in glob.glob("*/*/record.json", root_dir=store)]
    for path in records:
        unsealed(json.loads(path.read_text()), path)
    return len(records)


def kill(desk: Desk, process: "subprocess.Popen[bytes]", victim: str) -> str:
    """Kill one victim, and return which it was; the command where no worker lives."""
    workers = [pid for pid in desk.processes() if pid != process.pid]
    if victim == "worker" and workers:
        os.kill(random.choice(workers), signal.SIGKILL)  # no secret
        return "worker"
    for pid in desk.processes() if victim == "all" else [process.pid]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return victim if victim == "all" else "command"


def end(desk: Desk, process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    """Ask the command to end; what it says and leaves is in order, or it had ended by itself.

    Raises:
        AssertionError: Its exit code does not name the signal, it shows a trace, or leaves something.
    """
    process.send_signal(number)
    code, said = process.wait(), (desk.folder / "said.txt").read_text()
    if code in (0, 1):
        return
    assert code == ENDINGS[number], f"{number.name}: exit code {code}: {said}"
    assert "Traceback" not in said and "Exception ignored" not in said, said
    assert ended(desk), f"{number.name}: processes are left: {desk.processes()}"
    assert not desk.left(), f"{number.name}: left behind: {desk.left()}"


def ended(desk: Desk, limit_s: float = 15.0) -> bool:
    """Wait until no process of a run is left."""
    until = time.monotonic() + limit_s
    while desk.processes() and time.monotonic() < until:
        time.sleep(0.1)
    return not desk.processes()


def prepared(folder: Path) -> Path:
    """Write the tiny recipe and its files, and return the recipe."""
    from tiny_densenet import tiny_recipe

    from deploy_kit import recipe

    folder.mkdir(parents=True, exist_ok=True)
    chosen = tiny_recipe(folder)
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(chosen))
    return folder / "tiny.yaml"


def run_whole(desk: Desk) -> float:
    """Run without a kill, and return its seconds."""
    begun = time.monotonic()
    code = desk.start().wait()
    if code not in (0, 1):
        raise AssertionError(f"exit code {code}: {(desk.folder / 'said.txt').read_text()}")
    return time.monotonic() - begun


def try_kills(folder: Path, kills: int, seed: int) -> Counter[str]:
    """Kill runs, and hold what they leave and what comes after against a run that was not killed.

    Returns:
        How often each victim was killed, and how many stages were finished by then.

    Raises:
        AssertionError: Something was lost, half-written, left behind or made differently.
    """
    random.seed(seed)
    recipe, counts = prepared(folder / "files"), Counter[str]()
    whole = Desk(recipe, folder / "whole")
    seconds = run_whole(whole)
    wanted = whole.made()
    assert not whole.left(), f"left behind without a kill: {whole.left()}"
    for number in range(kills):
        desk = Desk(recipe, folder / f"kill-{number}")
        desk.folder.mkdir()
        process = desk.start()
        time.sleep(random.uniform(0.05, seconds))
        chosen = ORDER[number % len(ORDER)]
        if isinstance(chosen, signal.Signals):
            end(desk, process, chosen)
            victim = chosen.name
        else:
            victim = kill(desk, process, chosen)
        process.wait()
        assert ended(desk), f"{number}: processes are left: {desk.processes()}"
        n_records = read_all(desk.store) if desk.store.exists() else 0
        counts.update([victim, f"{n_records:2d} records"])
        run_whole(desk)
        assert ended(desk), f"{number}: processes are left: {desk.processes()}"
        made = desk.made()
        otherwise = sorted(name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name))
        assert not otherwise, f"{number}: {victim}: made otherwise than without a kill: {otherwise}"
        assert not desk.left(), f"{number}: {victim}: left behind: {desk.left()}"
        sys.stdout.write(f"{number + 1:3d}: {victim} killed after {n_records} records; whole again\n")
        sys.stdout.flush()
    return counts


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        counts = try_kills(Path(folder), asked.kills, asked.seed)
    for name, n in sorted(counts.items()):
        sys.stdout.write(f"{name}: {n}\n")


if __name__ == "__main__":
    main()
