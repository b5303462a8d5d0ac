"""What a user waits for: whole commands, with their wall time and the peak memory of all their processes."""

import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import child, page, subjects
from benchmarks.candidates import Ours
from benchmarks.page import NONE
from benchmarks.subjects import TEST, Subject
from benchmarks.workshop import Workshop
from deploy_kit import recipe
from deploy_kit.recipe import Recipe
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import report

_ROOT = Path(__file__).parent.parent
_POLL_S = 0.1
_CHECK_IMAGES = 128
_DEPLOY_CALIBRATION, _DEPLOY_CHECK = 128, 1000


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        name: What it did.
        line: As it was called, folders left out.
        exit_code: How it ended.
        seconds: Wall time.
        peak_mib: The largest sum of the resident memory of its processes, looked at every 100 ms; pages that several
            of them share count several times.
        stages: (stage, name, seconds) of its own report.
        verdicts: (engine, verdict, SQNR in dB) of its own report.
        words: The end of what it said, where it failed.
    """

    name: str
    line: str
    exit_code: int
    seconds: float
    peak_mib: int
    stages: tuple[tuple[str, str, float], ...] = ()
    verdicts: tuple[tuple[str, str, float], ...] = ()
    words: str = ""


@dataclass(frozen=True, kw_only=True)
class EndToEnd:
    """The commands of the section."""

    subject: str
    calibration_images: int
    check_images: int
    commands: tuple[Command, ...]


def measure(subject: Subject, files: Mapping[str, Ours], n_images: int, workshop: Workshop) -> EndToEnd:
    """Deploy twice, inspect and export alone; then the whole line for each INT8 file of ours on both CPU engines."""
    commands = [
        *_deploy(subject, workshop),
        _alone("inspect", subject),
        _alone("export", subject, *_stated(subject), "--store", "store"),
        *(_run(name, file, subject, n_images, workshop) for name, file in files.items()),
    ]
    return EndToEnd(
        subject=subject.name, calibration_images=n_images, check_images=_CHECK_IMAGES, commands=tuple(commands)
    )


def render(found: EndToEnd) -> str:
    """Show the commands, then what each took and gave."""
    rows = [
        (one.name, str(one.exit_code), f"{one.seconds:.1f}", f"{one.peak_mib}", _stages(one), _verdicts(one), one.words)
        for one in found.commands
    ]
    headings = ("command", "exit code", "seconds", "peak MiB", "seconds by stage", "verdicts", "note")
    text = (
        f"{found.subject}; calibrated with {found.calibration_images}, checked on {found.check_images} images; "
        f"`deploy` with {_DEPLOY_CALIBRATION} and {_DEPLOY_CHECK}, fp32 and INT8 on both CPU engines. Peak is "
        "the largest sum of the resident memory of all processes of a command, looked at every 100 ms."
    )
    return f"{text}\n\n{page.table(headings, rows)}"


def recipe_for(name: str, file: Ours, subject: Subject, calibration: Path, check: Path) -> Recipe:
    """Write the recipe of one run: the file's passes and scheme, on ONNX Runtime and OpenVINO."""
    engines = [{"engine": engine, "variants": [name]} for engine in ("onnxruntime", "openvino")]
    variant = {"name": name, "scheme": file.scheme, "options": dict(file.options)}
    return recipe.parse_recipe(
        {
            "name": "end-to-end",
            "source": subject.source.model_dump(mode="json", exclude_none=True),
            "export": {"tolerance": 1e-4},
            "simplify": {"passes": list(file.passes)},
            "quantize": {"calibration": str(calibration), "variants": [variant]},
            "build": {"engines": engines},
            "check": {"images": str(check), "limits": {"int8": {"min_sqnr_db": 15}}},
            "bench": {"rounds": 3, "runs": 1, "warmup_s": 0.1},  # the line must be whole; latency is measured elsewhere
        }
    )


def _stated(subject: Subject) -> tuple[str, ...]:
    what = subject.preprocess
    return "--input", f"{what.height}x{what.width}", "--mean", _listed(what.mean), "--std", _listed(what.std)


def _alone(verb: str, subject: Subject, *options: str) -> Command:
    """Time one command on a checkpoint that states nothing of its images."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / subject.path.name
        checkpoint.symlink_to(subject.path.absolute())
        return _timed(verb, (verb, checkpoint.name, *options), Path(folder))


def _deploy(subject: Subject, workshop: Workshop) -> tuple[Command, Command]:
    """Time `deploykit deploy` of a checkpoint, and the same command again, which takes all from the store."""
    what, checkpoint = subject.preprocess, subject.path.absolute()
    resize = () if what.resize is None else ("--resize", str(what.resize))
    sets = (workshop.calibration(_DEPLOY_CALIBRATION), subjects.subset(TEST, _DEPLOY_CHECK, workshop.folder))
    calibration, check = (str(path.absolute()) for path in sets)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / checkpoint.name).symlink_to(checkpoint)
        line = ("deploy", checkpoint.name, "--images", check, "--calibration", calibration, *_stated(subject), *resize)
        line = (*line, "--store", "store", "--out", "deliver", "--allow-invalid")
        first = _with_report(_timed("deploy", line, Path(folder)), Path(folder) / "deliver" / "report.json")
        return first, _timed("deploy again", line, Path(folder))


def _run(name: str, file: Ours, subject: Subject, n_images: int, workshop: Workshop) -> Command:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        calibration = workshop.calibration(n_images).absolute()
        check = subjects.subset(TEST, _CHECK_IMAGES, workshop.folder).absolute()
        source = subject.source.model_copy(update={"checkpoint": str(subject.path.absolute())})
        made = recipe_for(name, file, replace(subject, source=source), calibration, check)
        (home / "recipe.yaml").write_text(recipe.dump_recipe(made))
        one = _timed(f"run: {name}", ("run", "recipe.yaml", "--store", "store", "--out", "reports"), home)
        return _with_report(one, home / "reports" / made.name / "report.json")


def _with_report(one: Command, written: Path) -> Command:
    """Add what the command's own report says, if it wrote one."""
    if not written.is_file():
        return one
    found = report.load_report(written)
    stages = tuple((time.stage, Path(time.name).name, time.seconds) for time in found.times)  # no path of a machine
    verdicts = tuple(
        (row.label, row.verdict, row.parity.sqnr_db if isinstance(row.parity, ParityReport) else math.nan)
        for row in found.rows
    )
    return replace(one, stages=stages, verdicts=verdicts)


def _timed(name: str, arguments: tuple[str, ...], folder: Path) -> Command:
    """Call deploykit in `folder`; watch the memory of its processes."""
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    begun, peak = time.perf_counter(), 0
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            (sys.executable, "-m", "deploy_kit", *arguments),
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdout=said,
            stderr=said,
        )
        while process.poll() is None:
            peak = max(peak, tree_mib(process.pid))
            time.sleep(_POLL_S)
        seconds = time.perf_counter() - begun
        said.seek(0)
        words = said.read().strip().splitlines()[-3:]
    return Command(
        name=name,
        line=" ".join(("deploykit", *(Path(one).name if Path(one).is_absolute() else one for one in arguments))),
        exit_code=process.returncode,
        seconds=round(seconds, 1),
        peak_mib=peak,
        words=child.plain(" ".join(words)) if process.returncode else "",
    )


def tree_mib(root: int) -> int:
    """Add up the resident memory of a process and all its descendants, in MiB."""
    parents, pages = dict[int, int](), dict[int, int]()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents[int(folder.name)], pages[int(folder.name)] = int(stat[1]), int(stat[21])
    total = 0
    for process in pages:
        above = process
        while above != root and above in parents:
            above = parents[above]
        total += pages[process] * (above == root)
    return total * os.sysconf("SC_PAGE_SIZE") >> 20


def _listed(values: tuple[float, ...]) -> str:
    return ",".join(str(value) for value in values)


def _stages(one: Command) -> str:
    totals: dict[str, float] = {}
    for stage, _, seconds in one.stages:
        totals[stage] = totals.get(stage, 0.0) + seconds
    return ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in totals.items()) or NONE


def _verdicts(one: Command) -> str:
    return "; ".join(f"{label}: {verdict}, {sqnr:.1f} dB" for label, verdict, sqnr in one.verdicts) or NONE
