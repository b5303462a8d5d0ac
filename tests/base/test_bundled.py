"""Tests of bundled.py: where the files that ship with the package lie, and names that no file has."""

from pathlib import Path

import pytest

from deploy_kit.base import bundled
from deploy_kit.base.errors import UnknownNameError


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two recipes beside a package that ships nothing."""
    (tmp_path / "package").mkdir()
    (tmp_path / "recipes").mkdir()
    for name in ("zebra.yaml", "apple.yaml", "notes.txt"):
        (tmp_path / "recipes" / name).write_text("")
    monkeypatch.setattr(bundled, "_PACKAGE", tmp_path / "package")
    return tmp_path


def test_in_a_checkout_files_lie_beside_the_package(checkout):
    assert bundled.bundled_folder("recipes") == checkout / "recipes"


def test_in_a_wheel_files_lie_within_the_package(checkout):
    shipped = checkout / "package" / "shipped" / "recipes"
    shipped.mkdir(parents=True)

    assert bundled.bundled_folder("recipes") == shipped


def test_names_are_sorted_and_only_of_the_right_suffix(checkout):
    assert bundled.bundled_names("recipes") == ("apple", "zebra")


def test_find_gives_the_path_of_a_file(checkout):
    assert bundled.find_bundled("recipes", "apple") == checkout / "recipes" / "apple.yaml"


def test_unknown_name_says_what_was_looked_for(checkout):
    with pytest.raises(UnknownNameError) as caught:
        bundled.find_bundled("recipes", "aple")

    assert str(caught.value) == "no file 'aple' is bundled under 'recipes'"


def test_unknown_name_names_the_nearest(checkout):
    with pytest.raises(UnknownNameError) as caught:
        bundled.find_bundled("recipes", "aple")

    assert caught.value.hint == "did you mean 'apple'?"


def test_unknown_name_is_a_wrong_request(checkout):
    with pytest.raises(UnknownNameError) as caught:
        bundled.find_bundled("recipes", "aple")

    assert caught.value.exit_code == 2


def test_resolve_turns_the_prefix_into_the_bundled_path(checkout):
    assert bundled.resolve_bundled("recipes", "bundled:zebra") == checkout / "recipes" / "zebra.yaml"


def test_resolve_leaves_any_other_text_as_a_path(checkout):
    assert bundled.resolve_bundled("recipes", "zebra") == Path("zebra")


def test_resolve_names_the_nearest_of_a_bundled_name_that_does_not_exist(checkout):
    with pytest.raises(UnknownNameError, match="no file 'zebr' is bundled under 'recipes'"):
        bundled.resolve_bundled("recipes", "bundled:zebr")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("recipes", "demo"), ("calibration", "fashion-mnist-512"), ("models", "densenet_bc40_fmnist")],
)
def test_the_demo_ships_with_all_its_parts(kind, name):
    assert name in bundled.bundled_names(kind)
