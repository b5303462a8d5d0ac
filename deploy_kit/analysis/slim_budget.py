"""The fewest multiply-accumulates whose accuracy drop keeps a budget: chosen on tuning images, judged on others.

Shares of 0.05, 0.10, … are bisected: the drop is taken to grow as multiply-accumulates go. Each share is a slimmed
graph of its own, which the store keeps. Without labels the budget applies to the images whose answer changed, which is
more than what is lost.
"""

from dataclasses import dataclass, replace

import numpy as np

from deploy_kit.accuracy import metrics, paired
from deploy_kit.analysis import budget
from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.images import ImageSource
from deploy_kit.recipe import SlimTable
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.slimming import Slimmed, SlimSearch, SlimTrial
from deploy_kit.stages import slim
from deploy_kit.store import Key

VERSION = "1"
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
    """

    simplified: Artifact
    images: ImageSource
    tuning: ImageSource
    tuning_logits: ReferenceLogits
    check: ImageSource
    check_logits: ReferenceLogits | None
    step: int


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
    for logits in filter(None, (subject.tuning_logits, subject.check_logits)):
        budget.require_enough(logits.n, max_drop_pp)
    curves, _ = slim.measured(subject.simplified, context, images=subject.images)
    least = curves.cost(tuple(min(subject.step, curve.channels) for curve in curves.curves)) / curves.macs
    shares = [round(STEP * n, 2) for n in range(1, round(1 / STEP)) if STEP * n >= least]
    tried, chosen, low, high = list[SlimTrial](), None, 0, len(shares)
    best: SlimTrial | None = None
    while low < high:
        middle = (low + high) // 2
        small = _slimmed(subject, shares[middle], context)
        trial = _trial(small, shares[middle], subject.tuning, subject.tuning_logits, context)
        tried.append(trial)
        if trial.upper_pp <= max_drop_pp:
            high, best, chosen = middle, trial, small
        else:
            low = middle + 1
    judged = None
    if chosen is not None and best is not None and subject.check_logits is not None:
        judged = _trial(chosen, best.asked, subject.check, subject.check_logits, context)
    found = SlimSearch(
        max_drop_pp=max_drop_pp,
        tried=tuple(tried),
        chosen=best,
        judged=judged,
        artifact="" if chosen is None else chosen.onnx.sha256,
    )
    key = Key(
        stage="slim-search",
        name=f"{max_drop_pp:g}",
        inputs=(subject.simplified.sha256, subject.tuning_logits.sha256),
        options=[max_drop_pp, subject.step],
        versions=(("stage", VERSION),),
    )
    return context.store.produce(SlimSearch, key, lambda folder, home: found, again=True)[0], chosen


def _slimmed(subject: SlimSubject, share: float, context: Context) -> Slimmed:
    return slim.run(subject.simplified, SlimTable(macs=share, step=subject.step), context, images=subject.images)[0]


def _trial(
    small: Slimmed, asked: float, images: ImageSource, reference: ReferenceLogits, context: Context
) -> SlimTrial:
    """Run a slimmed graph on an image set and hold it against the checkpoint's logits."""
    graph = small.onnx

    def make(folder: object, home: str) -> SlimTrial:
        context.report("slim", f"{small.share:.2f} of the multiply-accumulates on {images.name}")
        found = inference.infer_all(
            context.connection,
            inference.InferenceTarget(engine="onnxruntime", path=context.store.path(graph), options={}),
            images.open(graph.preprocess),
            graph.preprocess,
            crops=reference.crops,
        ).logits
        with np.load(context.store.root / reference.path, allow_pickle=False) as data:
            wanted, labels = data["logits"], data["labels"] if reference.top1 is not None else None
        return judged(found, wanted, labels, replace(_UNJUDGED, asked=asked, share=small.share, images=images.name))

    key = Key(
        stage="slim-trial",
        name=f"{asked:g}",
        inputs=(graph.sha256, reference.sha256),
        options=[],
        versions=(("stage", VERSION),),
    )
    return replace(context.store.produce(SlimTrial, key, make)[0], asked=asked)


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
    return replace(
        trial,
        n=n,
        kl=metrics.kl_divergence(wanted, found),
        lost=lost,
        gained=gained,
        labelled=labels is not None,
        drop_pp=100 * (lost - gained) / n,
        upper_pp=100 * paired.drop_interval(lost, gained, n)[1],
    )


_UNJUDGED = SlimTrial(
    asked=0.0, share=0.0, images="", n=0, kl=0.0, lost=0, gained=0, labelled=False, drop_pp=0.0, upper_pp=0.0
)
