"""The rule by itself: what is expected of a point, when two networks part, and a channel that is lost."""

import math

import numpy as np
import pytest

from deploy_kit.analysis.difference import points, rule
from deploy_kit.records.difference import PointDifference

NAMES = ("stem", *(f"denseblock1.denselayer{n}.conv{at}" for n in (1, 2, 3) for at in (1, 2)), "features", "logits")


def rows(levels: dict[str, float], channel_db: float = 20.0) -> list[PointDifference]:
    expected = rule.expected_db(levels, "int8")
    return [
        PointDifference(
            point=name, sqnr_db=level, expected_db=expected[name], max_error=0.0, channel=0, channel_db=channel_db,
            session=1, undisturbed_db=math.inf,
        )
        for name, level in levels.items()
    ]  # fmt: skip


def test_what_a_point_reads() -> None:
    read = points.reads(NAMES)

    assert read["stem"] == ()
    assert read["denseblock1.denselayer1.conv2"] == ("denseblock1.denselayer1.conv1",)
    assert read["denseblock1.denselayer3.conv1"] == (
        "stem", "denseblock1.denselayer1.conv2", "denseblock1.denselayer2.conv2"
    )  # fmt: skip
    assert read["features"][-1] == "denseblock1.denselayer3.conv2"
    assert read["logits"] == ("features",)


def test_noise_that_grows_smoothly_is_no_fault() -> None:
    levels = dict(zip(NAMES, (42.0, 33.0, 36.0, 32.0, 34.0, 30.5, 31.5, 34.0, 36.0), strict=True))

    assert rule.parted(rows(levels)) == (None, "")


def test_a_clean_map_that_skips_a_bad_layer_explains_nothing_away() -> None:
    levels = dict(zip(NAMES, (42.0, 33.0, 36.0, 32.0, 3.0, 20.0, 25.0, 30.0, 30.0), strict=True))

    part, sign = rule.parted(rows(levels))

    assert part is not None
    assert (part.point, sign) == ("denseblock1.denselayer2.conv2", "fall")


def test_a_fall_by_less_than_the_limit_is_none() -> None:
    levels = dict.fromkeys(NAMES, 30.0)

    just, below = rows(levels | {NAMES[3]: 30.0 - rule.FALL_DB}), rows(levels | {NAMES[3]: 30.1 - rule.FALL_DB})

    assert rule.parted(just)[0] is not None
    assert rule.parted(below)[0] is None


def test_what_stays_in_float_promises_nothing_for_what_does_not() -> None:
    levels = dict(zip(NAMES, (130.0, 112.0, 112.6, 35.6, 36.0, 33.0, 34.0, 35.0, 36.0), strict=True))

    assert rule.parted(rows(levels)) == (None, "")


def test_not_finite_is_always_a_fault() -> None:
    part, _ = rule.parted(rows(dict.fromkeys(NAMES, -math.inf)))

    assert part is not None
    assert part.point == "stem"


def test_a_lost_channel_is_a_fault_at_any_level() -> None:
    part, sign = rule.parted(rows(dict.fromkeys(NAMES, 30.0), channel_db=0.0))

    assert part is not None
    assert sign == "lost channel"


def test_float_is_held_against_the_usual_level_alone() -> None:
    expected = rule.expected_db({"stem": 140.0, "denseblock1.denselayer1.conv1": 105.0}, "fp32")

    assert set(expected.values()) == {100.0}


def test_sqnr_in_decibels() -> None:
    reference = np.ones((1, 1, 100))

    assert rule.layer_sqnr_db(reference, reference * 1.1) == pytest.approx(20.0)
    assert rule.layer_sqnr_db(reference, reference) == math.inf
    assert (
        rule.layer_sqnr_db(reference * np.nan, reference)
        == rule.layer_sqnr_db(reference, reference * np.inf)
        == -math.inf
    )
    assert rule.layer_sqnr_db(0 * reference, reference) == -math.inf


def test_the_worst_channel_is_measured_by_its_own_variance() -> None:
    x = np.random.default_rng(0).standard_normal((4, 3, 1000))
    x[:, 2] *= 0.01  # carries next to nothing: what becomes of it does not count
    y = x.copy()
    y[:, 1] = x[:, 1].mean()
    y[:, 2] = 0

    channel, level = rule.worst_channel(x, y)

    assert channel == 1
    assert level == pytest.approx(0.0, abs=0.1)
    assert rule.worst_channel(np.ones((1, 2, 3)), np.zeros((1, 2, 3))) == (-1, math.inf)
