"""Faults planted into one layer of a file: each is found and named by its coordinate."""

import numpy as np
import pytest
from planted import Forms, change, weights_of

from deploy_kit.store import Store

pytest_plugins = ["small_forms"]

AT = [
    "denseblock1.denselayer3.conv1",
    "denseblock1.denselayer3.conv2",
    "denseblock2.denselayer1.conv1",
    "denseblock2.denselayer2.conv2",
]


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("factor", [4, 0.25])
@pytest.mark.parametrize("form", ["portable", "depthwise", "tensorrt", "everything", "ort"])
def test_scale_of_weights(form, factor, at, forms: Forms, store: Store) -> None:
    def fault(proto, find):
        _, s = weights_of(proto, find(at))
        if not s:
            pytest.skip("float")
        change(proto, s, lambda x: factor * x)

    found = forms.difference(forms.file("simplified"), forms.faulty(form, fault), store)
    print(found.verdict)
    for q in found.points:
        print("  %-28s %.1f exp %.1f ch %.1f" % (q.point, q.sqnr_db, q.expected_db, q.channel_db))
    assert found.part == at


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("factor", [4, 0.25])
@pytest.mark.parametrize("form", ["portable", "ort"])
def test_scale_of_activations(form, factor, at, forms: Forms, store: Store) -> None:
    from planted import maker

    if at.endswith("2"):
        pytest.skip()

    def fault(proto, find):
        conv2 = find(at[:-1] + "2")
        dq = maker(proto, conv2.input[0])
        change(proto, dq.input[1], lambda x: factor * x)

    found = forms.difference(forms.file("simplified"), forms.faulty(form, fault), store)
    print(found.verdict)
    for q in found.points:
        print("  %-28s %.1f exp %.1f ch %.1f" % (q.point, q.sqnr_db, q.expected_db, q.channel_db))
    assert found.part == at


@pytest.mark.parametrize("at", AT)
@pytest.mark.parametrize("form", ["simplified", "portable", "depthwise", "tensorrt", "everything", "ort"])
def test_dead(form, at, forms: Forms, store: Store) -> None:
    def fault(proto, find):
        w, _ = weights_of(proto, find(at))

        def f(x):
            x[2] = 0
            return x

        change(proto, w, f)

    found = forms.difference(forms.file("simplified"), forms.faulty(form, fault), store)
    print(found.verdict)
    for q in found.points:
        print("  %-28s %.1f exp %.1f ch %.1f" % (q.point, q.sqnr_db, q.expected_db, q.channel_db))
    assert found.part == at
