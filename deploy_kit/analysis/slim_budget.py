"""The fewest multiply-accumulates whose accuracy drop keeps a budget: chosen on tuning images, judged on others.

Shares of 0.05, 0.10, … are bisected: the drop is taken to grow as multiply-accumulates go. Each share is a slimmed
graph of its own, which the store keeps. Without labels the budget applies to the images whose answer changed, which is
more than what is lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deploy_kit.accuracy import metrics, paired, tasks
from deploy_kit.analysis import budget
from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.images import ImageSource
from deploy_kit.recipe import SlimTable, Variant
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.slimming import Slimmed, SlimSearch, SlimTrial
from deploy_kit.stages import quantize, slim
from deploy_kit.store import Key

VERSION = "3"
STEP = 0.05
"""Distance of the shares that are tried."""


@dataclass(frozen=True, kw_only=True)
class SlimSubject:
    """What is slimmed, and what it is held against.

    Attributes:
        simplified: The float graph.
        images: Image set that weights are refitted to.
        tuning: Image set that chooses, of which `images` has none.
        tuning_logits: The checkpoint's own logits on the tuning images.
        check: Image set that judges.
        check_logits: The checkpoint's own logits on them; None where the check set is noise.
        step: Numbers of channels are multiples of it.
        target: Engine whose measured milliseconds are what a layer costs; None for multiply-accumulates.
        variant: What is made of each slimmed graph before it is judged; None judges the float graph.
        calibration: Image set that the variant calibrates with.
    """

    simplified: Artifact
    images: ImageSource
    tuning: ImageSource
    tuning_logits: ReferenceLogits
    check: ImageSource
    check_logits: ReferenceLogits | None
    step: int
    target: str | None = None
    variant: Variant | None = None
    calibration: ImageSource | None = None


def refuse_shared(subject_images: ImageSource, tuning: ImageSource, check: ImageSource, graph: Artifact) -> None:
    """Refuse tuning images that weights are fitted to, or that the check judges by.

    Raises:
        InputError: Sets share at least one image, by sha256, or the tuning images are noise.
    """
    budget.refuse_overlap(tuning, check, graph)
    shared = tuning.open(graph.preprocess).overlap(subject_images.open(graph.preprocess))
    if shared:
        raise InputError(
            f"{shared} images are both in the tuning set '{tuning.name}' and in the set '{subject_images.name}' that "
            "the weights are refitted to: a budget chosen on them would be kept there alone",
            hint="choose on other images: --tune FOLDER (or an npz file)",
        )


def search(subject: SlimSubject, max_drop_pp: float, context: Context) -> tuple[SlimSearch, Slimmed | None]:
    """Find the smallest share that keeps the budget on the tuning images, and judge it on the check images.

    Args:
        subject: What is slimmed.
        max_drop_pp: Percentage points that the upper end of the drop's interval may reach.
        context: Where.

    Returns:
        What was tried, and the chosen graph; None where none keeps the budget on the tuning images.

    Raises:
        InputError: So few images could not show that the budget is kept, whatever the answers.
        DeployKitError: As `stages.slim.run`.
    """
    tried, best = smallest(subject, shares(subject, max_drop_pp, context), max_drop_pp, context)
    chosen = None if best is None else slimmed(subject, best.asked, context)
    found = SlimSearch(
        max_drop_pp=max_drop_pp,
        tried=tried,
        chosen=best,
        judged=None if chosen is None or best is None else confirmed(subject, chosen.onnx, best, context),
        artifact="" if chosen is None else chosen.onnx.sha256,
    )
    return kept(found, subject, context), chosen


def shares(subject: SlimSubject, max_drop_pp: float, context: Context) -> list[float]:
    """List the shares below 1 that a graph can be slimmed to, in ascending order.

    Raises:
        InputError: So few images could not show that the budget is kept, whatever the answers.
        DeployKitError: As `stages.slim.measured`.
    """
    for logits in filter(None, (subject.tuning_logits, subject.check_logits)):
        tasks.expect_rows(logits.task, logits.images, "slimming")
        budget.require_enough(logits.n, max_drop_pp)
    curves, _ = slim.measured(subject.simplified, context, images=subject.images)
    least = curves.cost([0 if c.gone else min(subject.step, c.channels) for c in curves.curves]) / curves.macs
    return [round(STEP * n, 2) for n in range(1, round(1 / STEP)) if STEP * n >= least]


def smallest(
    subject: SlimSubject, candidates: Sequence[float], max_drop_pp: float, context: Context
) -> tuple[tuple[SlimTrial, ...], SlimTrial | None]:
    """Bisect for the smallest share that keeps the budget on the tuning images.

    Args:
        subject: What is slimmed.
        candidates: Shares in ascending order.
        max_drop_pp: The budget.
        context: Where.

    Returns:
        The trials in the order in which they were made, and that of the smallest share; None where none keeps it.
    """
    tried, best, low, high = list[SlimTrial](), None, 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        _, trial = tuned(subject, candidates[middle], subject.variant, context)
        tried.append(trial)
        if trial.upper_pp <= max_drop_pp:
            high, best = middle, trial
        else:
            low = middle + 1
    return tuple(tried), best


def slimmed(subject: SlimSubject, share: float, context: Context) -> Slimmed:
    """Slim the graph to a share."""
    table = SlimTable(macs=share, step=subject.step, target=subject.target)
    return slim.run(subject.simplified, table, context, images=subject.images)[0]


def tuned(subject: SlimSubject, share: float, variant: Variant | None, context: Context) -> tuple[Artifact, SlimTrial]:
    """Slim to a share, quantize where a variant is given, and judge the graph on the tuning images."""
    small = slimmed(subject, share, context)
    graph, what = small.onnx, f"{small.share:.2f} of the multiply-accumulates"
    if variant is not None:
        graph, _ = quantize.run(small.onnx, variant, context, calibration=subject.calibration)
    context.report("slim", f"{what} in {graph.precision} on {subject.tuning.name}")
    like = replace(_UNJUDGED, asked=share, share=small.share, precision=graph.precision)
    return graph, judge(graph, like, subject.tuning, subject.tuning_logits, context)


def confirmed(subject: SlimSubject, graph: Artifact, chosen: SlimTrial, context: Context) -> SlimTrial | None:
    """Judge the chosen graph on the check images, which chose nothing; None where there are none."""
    if subject.check_logits is None:
        return None
    return judge(graph, chosen, subject.check, subject.check_logits, context)


def kept(found: SlimSearch, subject: SlimSubject, context: Context) -> SlimSearch:
    """Keep a search in the store, in place of an earlier one of the same question."""
    key = Key(
        stage="slim-search",
        name=f"{found.max_drop_pp:g}",
        inputs=(subject.simplified.sha256, subject.tuning_logits.sha256),
        options=[found.max_drop_pp, subject.step, subject.target, [one.engine for one in found.compared]],
        versions=(("stage", VERSION),),
    )
    return context.store.produce(SlimSearch, key, lambda folder, home: found, again=True)[0]


def judge(
    graph: Artifact, like: SlimTrial, images: ImageSource, reference: ReferenceLogits, context: Context
) -> SlimTrial:
    """Run a graph on an image set and hold it against the checkpoint's logits: ONNX Runtime computes it.

    Args:
        graph: The graph.
        like: What it is: share and precision.
        images: Image set.
        reference: The checkpoint's logits on it.
        context: Where.
    """
    like = replace(like, images=images.name, engine="", ms=None, faster=None)

    def make(folder: object, home: str) -> SlimTrial:
        found = inference.infer_all(
            context.connection,
            inference.InferenceTarget(engine="onnxruntime", path=context.store.path(graph), options={}),
            images.open(graph.preprocess),
            graph.preprocess,
            crops=reference.crops,
        ).logits
        with np.load(context.store.root / reference.path, allow_pickle=False) as data:
            wanted, labels = data["logits"], data["labels"] if reference.top1 is not None else None
        return judged(found, wanted, labels, like)

    key = Key(
        stage="slim-trial",
        name=f"{like.asked:g}",
        inputs=(graph.sha256, reference.sha256),
        options=[],
        versions=(("stage", VERSION),),
    )
    return replace(context.store.produce(SlimTrial, key, make)[0], asked=like.asked, share=like.share, kept=like.kept)


def judged(found: np.ndarray, wanted: np.ndarray, labels: np.ndarray | None, trial: SlimTrial) -> SlimTrial:
    """Fill a trial's numbers in.

    Args:
        found: (N, K) logits of the slimmed graph.
        wanted: (N, K) logits of the checkpoint.
        labels: (N,) labels; None where there are none.
        trial: Says what was tried, and on what.
    """
    n = len(found)
    if labels is None:
        lost, gained = int((found.argmax(1) != wanted.argmax(1)).sum()), 0
    else:
        lost, gained = paired.discordant_counts(metrics.top1_hits(wanted, labels), metrics.top1_hits(found, labels))
    low, high = paired.drop_interval(lost, gained, n)
    return replace(
        trial,
        n=n,
        kl=metrics.kl_divergence(wanted, found),
        lost=lost,
        gained=gained,
        labelled=labels is not None,
        drop_pp=100 * (lost - gained) / n,
        upper_pp=100 * high,
        lower_pp=100 * low,
    )


_UNJUDGED = SlimTrial(
    asked=0.0, share=0.0, images="", n=0, kl=0.0, lost=0, gained=0, labelled=False, drop_pp=0.0, upper_pp=0.0
)
