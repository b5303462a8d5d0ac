"""``python -m benchmarks``: measure, keep every sample as JSON, print the tables and write them as a page."""

import argparse
import datetime
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from benchmarks import document, workshop
from benchmarks.document import Section
from benchmarks.modes import ALL, MODES, Asked
from benchmarks.race import Plan
from benchmarks.records import Stamp
from benchmarks.slimmed import SHARES
from benchmarks.subjects import CALIBRATION
from deploy_kit.base import lazy
from deploy_kit.base.errors import DeployKitError, RequestError, nearest
from deploy_kit.machine import environment


def main(arguments: list[str]) -> int:
    """Run the modes asked for; give the exit code."""
    said = _parser().parse_args(arguments)
    lazy.switch_telemetry_off()  # for the stock tools
    try:
        asked, modes = _asked(said), _chosen(said.modes, MODES, "mode")
        sections = document.read(said.out)
        with workshop.opened(said.work) as shop:
            for mode in modes:
                sections[mode] = _measured(mode, asked, shop, said)
                document.write(said.out, sections)  # after each mode: a later one may fail
                print(document.markdown(sections[mode]), flush=True)
    except DeployKitError as error:
        sys.stderr.write(f"error: {error}\n" + (f"  fix: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    document.write(said.out, sections)
    print(f"written: {said.out / 'benchmarks.json'} and its pages")
    return 0


def _measured(mode: str, asked: Asked, shop: workshop.Workshop, said: argparse.Namespace) -> Section:
    here, begun = environment.describe_machine(), time.perf_counter()
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    result = MODES[mode].measure(asked, shop)
    stamp = Stamp(
        command=_command(mode, said),
        when=when,
        seconds=round(time.perf_counter() - begun, 1),
        environment=here,
        load_after=round(os.getloadavg()[0], 2),
    )
    return Section(mode=mode, stamp=stamp, result=result)


def _command(mode: str, said: argparse.Namespace) -> str:
    """Return the line that repeats one mode, without the folders of this machine."""
    words = ["python -m benchmarks --modes", mode, *(["--quick"] if said.quick else [])]
    for name in ("only", "rounds", "recompiles", "threads", "shares"):
        if getattr(said, name):
            words += [f"--{name}", str(getattr(said, name))]
    if said.images != CALIBRATION:
        words += ["--images", Path(said.images).name]
    if said.checkpoint is not None:
        words += ["--checkpoint", said.checkpoint.name, "--size", str(said.size)]
    return " ".join(words)


def _asked(said: argparse.Namespace) -> Asked:
    plan = Plan(threads=said.threads or len(os.sched_getaffinity(0)))
    if said.quick:
        plan = replace(plan, recompiles=1, rounds=4, runs=2, calibration_images=16)
    stated = {"recompiles": said.recompiles, "rounds": said.rounds}
    plan = replace(plan, **{name: value for name, value in stated.items() if value is not None})
    return Asked(
        only=_chosen(said.only, ALL, "candidate") if said.only else (),
        plan=plan,
        checkpoint=said.checkpoint,
        size=said.size,
        quick=said.quick,
        images=said.images,
        shares=tuple(float(text) for text in said.shares.split(",")) if said.shares else SHARES,
    )


def _chosen(text: str, known: Mapping[str, object], noun: str) -> tuple[str, ...]:
    """Split a comma list of names.

    Raises:
        RequestError: One of them is not known.
    """
    names = tuple(text.split(",")) if text else tuple(known)
    for name in names:
        if name not in known:
            raise RequestError(f"no {noun} is called '{name}'", hint=nearest(name, known))
    return names


def _parser() -> argparse.ArgumentParser:
    modes = "\n".join(f"  {name:12} {mode.title}: {mode.about}" for name, mode in MODES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"{__doc__}\n\nmodes:\n{modes}\n\ncandidates: {', '.join(ALL)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--modes", default="", metavar="NAME,…", help="sections to measure (default: all)")
    add("--only", default="", metavar="NAME,…", help="candidates to measure, beside their baselines (default: all)")
    add("--quick", action="store_true", help="one process, few rounds: shows that it works, proves nothing")
    add("--rounds", type=int, help="turns of each candidate in one process (default: 12)")
    add("--recompiles", type=int, help="processes, each loading every file anew (default: 5)")
    add("--threads", type=int, default=0, help="of one run (default: every core this process may use)")
    add("--checkpoint", type=Path, help="a trained DenseNet instead of the one with seeded weights")
    add("--size", type=int, default=224, help="side in px that --checkpoint was trained at, for accuracy")
    add("--images", default=CALIBRATION, help="images that slimming refits weights to (default: the bundled ones)")
    add("--shares", default="", metavar="0.8,…", help="shares of the multiply-accumulates that slimming leaves")
    add("--out", type=Path, default=Path("reports"), help="folder of benchmarks.json and its pages (default: reports)")
    add("--work", type=Path, default=Path(".deploykit/benchmarks"), help="folder of the files that are made")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
