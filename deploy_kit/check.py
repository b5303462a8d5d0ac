"""Engine against the checkpoint's own answers, on tensors and on labels where there are any. A failure is an answer."""

import json

import numpy as np

from deploy_kit import hygiene, images, infer, metrics
from deploy_kit.devices import Connection
from deploy_kit.errors import CheckError
from deploy_kit.measurements import NotRun
from deploy_kit.recipe import CheckTable
from deploy_kit.records import Answers, Artifact
from deploy_kit.results import Limits, ParityReport
from deploy_kit.store import Key, Store
from deploy_kit.watch import Event, Watch, silent

VERSION = "1"
_WORST = 10


def run(
    engine: Artifact,
    answers: Answers,
    part: CheckTable,
    *,
    store: Store,
    link: Connection,
    watch: Watch = silent,
) -> tuple[ParityReport | NotRun, bool]:
    """Hold one engine against the answers, and mark it accepted or rejected.

    Returns:
        The report (or why it cannot run here), and whether the store had it.

    Raises:
        CheckError: The engine gives logits of another shape.
        EngineCrashError: Native code died.
    """
    why = hindrance(engine, link)
    if why:
        return NotRun(artifact=engine.sha256, label=engine.label, why=why), False
    there = link.environment
    limits = part.limits[engine.precision].record() if engine.precision in part.limits else Limits()
    key = Key(
        stage="check",
        name=f"{engine.name}.{engine.engine}",
        inputs=(engine.sha256, answers.sha256),
        options=[limits, engine.options, engine.engine],
        versions=(("stage", VERSION), ("cpu", there.cpu), ("isa", " ".join(there.isa)), *there.versions),
    )

    def make(folder: object, home: str) -> ParityReport:
        return _compare(engine, answers, limits, store, link, watch)

    report, reused = store.produce(ParityReport, key, make)
    if report.passed:
        store.accept(engine)
    else:
        store.reject(engine, report.failures)
    return report, reused


def hindrance(engine: Artifact, link: Connection) -> str:
    """Ask the machine why it cannot run this engine; empty if it can."""
    with link.worker() as worker:
        return str(worker.ask("hindrance", engine.path, engine=engine.engine)["why"])


def overlap(
    calibration: str | None, part: CheckTable, engine_input: Artifact, *, skip_bad: bool = False
) -> tuple[str, ...]:
    """Refuse a check set that shares images with the calibration set.

    Args:
        calibration: The calibration set; None where there is none.
        part: Names the check set.
        engine_input: Whose preprocessing both sets go through.
        skip_bad: Leave out calibration images that cannot be read.

    Returns:
        What else is to be known of the two: images that look alike, classes that only one has.

    Raises:
        InputError: They share at least one image, by sha256.
    """
    if calibration is None or images.SYNTHETIC in (calibration, part.images):
        return ()
    preprocess = engine_input.preprocess
    seen = images.open_set(calibration, preprocess, skip_bad=skip_bad)
    return hygiene.require(
        seen, hygiene.compare(seen, images.open_set(part.images, preprocess, skip_bad=part.skip_bad))
    )


def _compare(
    engine: Artifact, answers: Answers, limits: Limits, store: Store, link: Connection, watch: Watch
) -> ParityReport:
    with np.load(store.root / answers.path, allow_pickle=False) as data:
        wanted = data["logits"]
        labels = data["labels"] if answers.top1 is not None else None
    image_set = images.open_set(answers.images, engine.preprocess, skip_bad=answers.skipped > 0)
    if image_set.n != answers.n:
        raise CheckError(f"{answers.images}: {image_set.n} images, the answers are for {answers.n}")
    assert engine.engine is not None
    target = infer.Target(engine=engine.engine, path=store.path(engine), options=json.loads(engine.options))

    def progress(done: int) -> None:
        watch(Event(stage="check", text=engine.label, done=done, total=image_set.n))

    found = infer.run(link, target, image_set, engine.preprocess, progress=progress)
    if found.logits.shape != wanted.shape:
        raise CheckError(f"{engine.label}: expected logits {wanted.shape}, found {found.logits.shape}")
    return judge(engine, answers, wanted, found.logits, labels, limits, found.settings)


def judge(
    engine: Artifact,
    answers: Answers,
    wanted: np.ndarray,
    found: np.ndarray,
    labels: np.ndarray | None,
    limits: Limits,
    settings: tuple[tuple[str, str], ...] = (),
) -> ParityReport:
    """Measure two sets of logits (n, classes) against each other and put the limits beside the numbers."""
    errors = metrics.errors(wanted, found)
    top1_reference = top1 = drop = half = None
    if labels is not None:
        before, after = metrics.hits(wanted, labels), metrics.hits(found, labels)
        top1_reference, top1 = float(before.mean()), float(after.mean())
        drop, half = metrics.paired_drop_pp(before, after)
    worst = np.argsort(-np.nan_to_num(errors, nan=np.inf), kind="stable")[:_WORST]
    return ParityReport(
        artifact=engine.sha256,
        label=engine.label,
        n=len(wanted),
        images=answers.images,
        sqnr_db=metrics.sqnr_db(wanted, found),
        cosine=metrics.cosine(wanted, found),
        max_error=float(errors.max()),
        agreement=metrics.agreement(wanted, found),
        top1_reference=top1_reference,
        top1=top1,
        drop_pp=drop,
        drop_pp_interval=half,
        worst_images=tuple(int(index) for index in worst),
        limits=limits,
        settings=settings,
    )
