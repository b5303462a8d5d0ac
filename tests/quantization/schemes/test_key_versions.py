"""Tests of what decides a scheme's result beside source, images and options: versions, and passes not applied yet."""

import dataclasses

import pytest
import tiny_graphs

from deploy_kit.graph import passes
from deploy_kit.machine import environment
from deploy_kit.quantization import schemes
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.made_by import MadeBy

SIMPLIFYING = [name for name in schemes.CATALOGUE.names() if schemes.CATALOGUE.get(name).simplifies]


def source(*names: str) -> Artifact:
    """Give a float graph that `simplify` made with these passes."""
    exported = tiny_graphs.exported()[0].onnx
    return dataclasses.replace(exported, made_by=MadeBy(passes=", ".join(names), versions=(("onnx", "1.0"),)))


@pytest.mark.parametrize("name", schemes.CATALOGUE.names())
def test_versions_of_schemes_and_libraries_are_all_for_a_source_with_the_default_passes(name: str) -> None:
    scheme = schemes.CATALOGUE.get(name)

    found = scheme.key_versions(source(*passes.default_passes()))

    rows = tuple(row for row in environment.library_versions() if row[0] in scheme.libraries)
    assert found == (("schemes", schemes.VERSION), *rows)


def test_schemes_that_plan_from_the_structure_run_the_default_passes() -> None:
    assert {"int8_portable", "int8_tensorrt"} <= set(SIMPLIFYING)


@pytest.mark.parametrize("name", SIMPLIFYING)
def test_default_passes_count_where_the_source_has_not_been_through_them(name: str) -> None:
    found = schemes.CATALOGUE.get(name).key_versions(source("fold_constants"))

    assert ("passes", ", ".join(passes.default_passes())) in found


@pytest.mark.parametrize("name", SIMPLIFYING)
def test_other_default_passes_are_another_key(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = source(*passes.default_passes())
    before = schemes.CATALOGUE.get(name).key_versions(made)
    monkeypatch.setattr(passes, "default_passes", lambda: ("fold_constants",))

    assert schemes.CATALOGUE.get(name).key_versions(made) != before


@pytest.mark.parametrize("name", ["fp16", "int8_ort"])
def test_a_scheme_that_applies_no_default_passes_does_not_depend_on_them(name: str) -> None:
    scheme = schemes.CATALOGUE.get(name)

    assert scheme.key_versions(source("fold_constants")) == scheme.key_versions(source(*passes.default_passes()))


def test_a_library_that_only_one_scheme_uses_counts_with_its_version() -> None:
    scheme = dataclasses.replace(schemes.CATALOGUE.get("fp16"), libraries=("onnx", "pytest", "no-such-library"))

    found = dict(scheme.key_versions(source()))

    assert found["pytest"] == pytest.__version__
    assert set(found) == {"schemes", "onnx", "pytest"}
