"""Pairs without a fault: nothing is accused, and the noise is named."""

import pytest
from planted import FORMS, Forms

from deploy_kit.store import Store

pytest_plugins = ["small_forms"]


@pytest.mark.parametrize("form", FORMS)
def test_no_form_is_accused(form: str, forms: Forms, store: Store) -> None:
    found = forms.difference("checkpoint", forms.file(form), store)
    print(found.verdict)
    for p in found.points:
        print(
            "%-28s %.1f exp %.1f ch %.1f  und %.1f  s%d"
            % (p.point, p.sqnr_db, p.expected_db, p.channel_db, p.undisturbed_db, p.session)
        )

    assert found.part == ""
    assert found.every_layer
