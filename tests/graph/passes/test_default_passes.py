"""Tests of the default passes: each states its place in its own file, and ``default`` in a recipe stands for them."""

from collections.abc import Callable

import onnx_ir as ir
import pytest

from deploy_kit.base.errors import UnknownNameError
from deploy_kit.graph import passes
from deploy_kit.graph.passes import Outcome, Pass


@pytest.fixture
def with_pass(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int | None], None]:
    """Add a pass that does nothing to the catalogue, at a place among the default passes or at none."""
    names, get = passes.CATALOGUE.names(), passes.CATALOGUE.get

    def add(name: str, order: int | None) -> None:
        entry = Pass(apply=lambda model: Outcome(fired=0), promise=0.0, order=order)
        monkeypatch.setattr(passes.CATALOGUE, "names", lambda: tuple(sorted((*names, name))))
        monkeypatch.setattr(passes.CATALOGUE, "get", lambda one: entry if one == name else get(one))

    return add


def test_the_default_passes_are_those_with_a_place_in_the_order_of_their_places() -> None:
    entries = {name: passes.CATALOGUE.get(name).order for name in passes.CATALOGUE.names()}

    found = passes.default_passes()

    places = [entries[name] for name in found]
    assert set(found) == {name for name, order in entries.items() if order is not None}
    assert places == sorted(places)


def test_a_pass_that_a_target_likes_is_no_default() -> None:
    assert not {"relu_after_pool", "batchnorm_to_max", "flatten_concats"} & set(passes.default_passes())


def test_a_new_default_pass_takes_its_place_without_an_edit_elsewhere(
    with_pass: Callable[[str, int | None], None],
) -> None:
    before = passes.default_passes()
    with_pass("new_rewrite", 55)

    found = passes.default_passes()

    at = before.index("fold_batchnorm") + 1
    assert found == (*before[:at], "new_rewrite", *before[at:])


def test_a_pass_without_a_place_changes_no_default(with_pass: Callable[[str, int | None], None]) -> None:
    before = passes.default_passes()
    with_pass("new_rewrite", None)

    assert passes.default_passes() == before


def test_two_passes_at_one_place_run_by_name(with_pass: Callable[[str, int | None], None]) -> None:
    with_pass("aaa_first", passes.CATALOGUE.get("fold_pads").order)

    found = passes.default_passes()

    assert found.index("aaa_first") + 1 == found.index("fold_pads")


def test_default_stands_for_the_default_passes_where_it_stands() -> None:
    found = passes.resolve_names(("flatten_concats", "default", "relu_after_pool"))

    assert found == ("flatten_concats", *passes.default_passes(), "relu_after_pool")


def test_a_list_without_default_stays_as_it_is() -> None:
    assert passes.resolve_names(("remove_unused", "fold_constants")) == ("remove_unused", "fold_constants")


@pytest.mark.parametrize(("name", "hint"), [("fold_pad", "fold_pads"), ("defaults", "default")])
def test_an_unknown_pass_in_a_list_names_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"no graph pass is called '{name}'") as caught:
        passes.resolve_names(("fold_constants", name))

    assert caught.value.hint == f"did you mean '{hint}'?"


def test_passes_are_applied_in_the_order_of_their_list(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[str] = []

    def entry(name: str) -> Pass:
        return Pass(apply=lambda model: applied.append(name) or Outcome(fired=0), promise=0.0)

    monkeypatch.setattr(passes.CATALOGUE, "get", entry)
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=8)

    passes.apply_passes(model, ("remove_unused", "fold_constants", "remove_unused"))

    assert applied == ["remove_unused", "fold_constants", "remove_unused"]
