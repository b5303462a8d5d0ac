"""Pairs without a fault: nothing is accused, and the noise is named."""

import math
from typing import TYPE_CHECKING

import pytest
from planted import FORMS
from stage_inputs import images_of

from deploy_kit.analysis import difference
from deploy_kit.base import lazy
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from planted import Forms

pytest_plugins = ["small_forms"]


@pytest.mark.parametrize("form", FORMS)
def test_no_form_is_accused(form: str, forms: "Forms", store: Store) -> None:
    if lack := lazy.install_line("nncf") if form == "nncf" and not lazy.present("nncf") else "":
        pytest.skip(lack)

    found = forms.difference("checkpoint", forms.file(form), store)

    assert found.part == ""
    assert found.every_layer
    assert found.verdict.startswith("no single place: noise grows smoothly, from ")


def test_float_forms_differ_by_rounding_alone(forms: "Forms", store: Store) -> None:
    found = forms.difference("checkpoint", forms.file("exported"), store)
    again = forms.difference(forms.file("exported"), forms.file("simplified"), store)

    assert found.part == again.part == ""
    assert "no place: they differ by float's own rounding, " in found.verdict
    assert min(row.sqnr_db for row in (*found.points, *again.points)) > 100


def test_points_are_all_there_and_in_order(forms: "Forms", store: Store) -> None:
    found = forms.difference("checkpoint", forms.file("portable"), store)

    layers = [f"denseblock{block}.denselayer{n}" for block, last in ((1, 4), (2, 3)) for n in range(1, last + 1)]
    convs = [f"{layer}.conv{at}" for layer in layers for at in (1, 2)]
    assert [row.point for row in found.points] == ["stem", *convs[:8], "transition1", *convs[8:], "features", "logits"]
    assert found.unlike == ()


def test_a_file_equals_itself(forms: "Forms", store: Store) -> None:
    found = forms.difference(forms.file("portable"), forms.file("portable"), store)

    assert found.verdict == "they are equal to the last bit"


def test_observing_integers_changes_nothing(forms: "Forms", store: Store) -> None:
    found = forms.difference("checkpoint", forms.file("portable"), store)

    assert all(row.undisturbed_db == math.inf for row in found.points)
    assert "observing" not in found.verdict


def test_what_observing_changes_is_said(forms: "Forms", store: Store) -> None:
    found = forms.difference("checkpoint", forms.file("fp16"), store)  # fused parts stay in float32 unless looked at

    disturbed = [row for row in found.points if row.undisturbed_db < math.inf]
    assert disturbed
    assert len({row.session for row in disturbed}) == len(disturbed)  # each was observed alone
    assert f"observing {disturbed[0].point} and {len(disturbed) - 1} more changed the logits (" in found.verdict


def test_an_answer_is_kept(forms: "Forms", store: Store, connection: Connection) -> None:
    pair = [
        difference.find_subject(str(forms.file(name)), store, forms.recipe.source)
        for name in ("exported", "simplified")
    ]

    made, reused = difference.find_difference(
        *pair, Context(store=store, connection=connection), images=images_of(forms.recipe.check.images)
    )
    again, reused_again = difference.find_difference(
        *pair, Context(store=store, connection=connection), images=images_of(forms.recipe.check.images)
    )

    assert (reused, reused_again) == (False, True)
    assert again == made
