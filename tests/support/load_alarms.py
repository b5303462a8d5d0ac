"""False alarms and misses of the load check: benches on a quiet machine, and benches beside a load that is known.

    python tests/support/load_alarms.py --each 20

Quiet benches must be valid; those beside a load must not be: a busy loop on one core, on every core, on the one core
that the engine may use, and a CPU quota of half a core. Each is done with the default length, and with `--rounds 4
--runs 8`, which takes less than a second. The machine must be quiet otherwise; for the quota its control groups must be
writable. Prints a table for docs/measuring.md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

LENGTHS = {"default": (), "short": ("--rounds", "4", "--runs", "8", "--warmup", "0.2")}
_GROUP = "deploykit-load-alarms"


@contextlib.contextmanager
def busy(cores: tuple[int, ...]) -> Iterator[None]:
    """Burn these cores."""
    loops = [subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while True: pass"]) for core in cores]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def quota_group(share: float) -> Path | None:
    """Make a control group with a CPU quota of a share of one core; None where that is not permitted."""
    for root, files in (
        (Path("/sys/fs/cgroup"), {"cpu.max": f"{round(share * 1e5)} 100000"}),
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": str(round(share * 1e5))}),
    ):
        with contextlib.suppress(OSError):
            if not (root / "cgroup.procs").is_file():
                continue  # a folder of mounts, and no control group
            group = root / _GROUP
            group.mkdir(exist_ok=True)
            for name, text in files.items():
                (group / name).write_text(text)
            return group
    return None


def bench(store: Path, length: tuple[str, ...], *, core: int | None = None, group: Path | None = None) -> list[str]:
    """Measure the newest engine, and return why its numbers are not valid."""

    def enter() -> None:
        if group is not None:
            (group / "cgroup.procs").write_text(str(os.getpid()))
        if core is not None:
            os.sched_setaffinity(0, {core})

    line = [sys.executable, "-m", "deploy_kit", "bench", "--json", "--fresh", "--store", str(store), "--allow-invalid"]
    process = subprocess.run([*line, *length], capture_output=True, text=True, preexec_fn=enter, check=False)
    if process.returncode not in (0, 1):
        raise AssertionError(process.stderr)
    (measured,) = json.loads(process.stdout)["measurements"]
    return list(measured["invalid"])


def conditions() -> dict[str, tuple[bool, Callable[[], AbstractContextManager[None]], dict[str, object]]]:
    """List the conditions by name: whether they must be noticed, the load, and where the bench runs."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    found: dict[str, tuple[bool, Callable[[], AbstractContextManager[None]], dict[str, object]]] = {
        "quiet": (False, contextlib.nullcontext, {}),
        "quiet, on one core (taskset)": (False, contextlib.nullcontext, {"core": cores[0]}),
        "busy loop on one core": (True, lambda: busy(cores[-1:]), {}),
        "busy loop on every core": (True, lambda: busy(cores), {}),
        "busy loop on the core of the bench (taskset)": (True, lambda: busy(cores[:1]), {"core": cores[0]}),
        "busy loop on another core than the bench's (taskset)": (False, lambda: busy(cores[-1:]), {"core": cores[0]}),
    }
    group = quota_group(0.5)
    if group is not None:
        found["CPU quota of half a core"] = (True, contextlib.nullcontext, {"group": group})
    return found


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--each", type=int, default=20, help="benches of each condition and length")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="alarms-") as folder:
        store = Path(folder) / "store"
        for line in (("export",), ("build", "--engine", "onnxruntime")):  # the bundled demo
            command = [sys.executable, "-m", "deploy_kit", *line, "--store", str(store)]
            subprocess.run(command, check=True, capture_output=True)
        sys.stdout.write("| condition | length | benches | called invalid | right |\n|---|---|---|---|---|\n")
        for name, (loaded, load, where) in conditions().items():
            for length, options in LENGTHS.items():
                with load():
                    answers = [bench(store, options, **where) for _ in range(asked.each)]  # type: ignore[arg-type]
                called = sum(map(bool, answers))
                right = called if loaded else asked.each - called
                sys.stdout.write(f"| {name} | {length} | {asked.each} | {called} | {right} of {asked.each} |\n")
                for reason in dict.fromkeys(reason for reasons in answers for reason in reasons[:1]):
                    sys.stderr.write(f"{name}, {length}: {reason}\n")
                sys.stdout.flush()
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/cpu"):
        with contextlib.suppress(OSError):
            Path(root, _GROUP).rmdir()


if __name__ == "__main__":
    main()
