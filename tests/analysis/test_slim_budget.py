"""The search for a share: which it chooses, what judges it, what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
from report_records import artifact

from deploy_kit.analysis import slim_budget
from deploy_kit.analysis.slim_budget import SlimSubject, judged
from deploy_kit.base.errors import InputError
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSource
from deploy_kit.records.artifacts import Artifact, ReferenceLogits
from deploy_kit.records.slimming import ChannelCurve, ChannelCurves, Slimmed, SlimTrial
from deploy_kit.stages import slim
from deploy_kit.store import Store

N = 4000
GRAPH = artifact("fp32")


def trial(**given: object) -> SlimTrial:
    return replace(slim_budget._UNJUDGED, **given)  # type: ignore[arg-type]


def stand_in(share: float) -> Slimmed:
    return Slimmed(onnx=replace(GRAPH, sha256=f"{share:g}"), macs_before=100, macs_after=round(100 * share), layers=())


class Searched:
    """A search whose trials lose what `drops` says of a share, without any network."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tuning: float, check: float) -> None:
        curve = ChannelCurve(name="a", reader="y", macs=90, order=tuple(range(15)), errors=(0.0,) * 16)
        curves = ChannelCurves(
            path="", sha256="", macs=100, n_images=1, curves=(curve,), refused=(), seconds=0, peak_memory_mib=0
        )
        monkeypatch.setattr(slim, "measured", lambda *given, **named: (curves, True))
        monkeypatch.setattr(slim_budget, "slimmed", lambda subject, share, context: stand_in(share))
        monkeypatch.setattr(slim_budget, "judge", self._judge)
        self._drops = {"tune": tuning, "check": check}

    def _judge(
        self, graph: Artifact, like: SlimTrial, images: ImageSource, reference: ReferenceLogits, context: Context
    ) -> SlimTrial:
        lost = self._drops[images.name] * (1 - like.asked)  # in points: linear in what is removed
        return replace(like, images=images.name, n=N, drop_pp=lost, upper_pp=lost + 0.1)


def subject(check: bool = True, n: int = N) -> SlimSubject:
    def logits(name: str) -> ReferenceLogits:
        return ReferenceLogits(path="", sha256="", images=name, n=n, labelled=True, top1=0.9)

    return SlimSubject(
        simplified=GRAPH,
        images=ImageSource(name="calibration"),
        tuning=ImageSource(name="tune"),
        tuning_logits=logits("tune"),
        check=ImageSource(name="check"),
        check_logits=logits("check") if check else None,
        step=4,
    )


def searched(store: Store, connection: Connection, given: SlimSubject, points: float = 0.4):  # type: ignore[no-untyped-def]
    return slim_budget.search(given, points, Context(store=store, connection=connection))


def test_the_smallest_share_that_keeps_the_budget_is_chosen(
    monkeypatch: pytest.MonkeyPatch, store: Store, connection: Connection
) -> None:
    Searched(monkeypatch, tuning=1.0, check=0.5)

    found, small = searched(store, connection, subject())

    assert (found.chosen.asked, small.share, found.artifact) == (0.7, 0.7, "0.7")  # 0.3 lost and 0.1 of interval
    assert (found.judged.images, found.judged.upper_pp) == ("check", pytest.approx(0.25))
    assert found.found
    assert len(found.tried) <= 5
    assert all(one.images == "tune" for one in found.tried)


def test_a_choice_that_the_check_images_do_not_confirm_is_not_found(
    monkeypatch: pytest.MonkeyPatch, store: Store, connection: Connection
) -> None:
    Searched(monkeypatch, tuning=1.0, check=2.0)

    found, _ = searched(store, connection, subject())

    assert found.chosen is not None
    assert found.judged.upper_pp > 0.4
    assert not found.found


def test_nothing_within_the_budget_is_an_answer(
    monkeypatch: pytest.MonkeyPatch, store: Store, connection: Connection
) -> None:
    Searched(monkeypatch, tuning=100.0, check=0.0)

    found, small = searched(store, connection, subject())

    assert (found.chosen, found.judged, small) == (None, None, None)
    assert not found.found


def test_shares_below_what_can_be_left_are_not_tried(
    monkeypatch: pytest.MonkeyPatch, store: Store, connection: Connection
) -> None:
    Searched(monkeypatch, tuning=0.0, check=0.0)

    found, _ = searched(store, connection, subject())

    assert found.chosen.asked == 0.35  # 4 of 16 channels leave 10 + 90 / 4 of 100


def test_too_few_images_are_refused_before_any_work(store: Store, connection: Connection) -> None:
    with pytest.raises(InputError, match=r"100 images cannot show a drop of at most 0\.4 points"):
        searched(store, connection, subject(n=100))


@pytest.mark.parametrize("labelled", [True, False])
def test_a_trial_counts_by_labels_or_every_changed_answer(labelled: bool) -> None:
    wanted = np.eye(3)[[0, 1, 2, 0]] * 5
    found = np.eye(3)[[0, 1, 1, 1]] * 5  # two answers changed: one right before, one right now
    labels = np.asarray([0, 1, 2, 1]) if labelled else None

    made = judged(found, wanted, labels, trial())

    assert (made.n, made.lost, made.gained) == ((4, 1, 1) if labelled else (4, 2, 0))
    assert made.drop_pp == (0 if labelled else 50)
    assert made.upper_pp > made.drop_pp
    assert made.kl > 0
