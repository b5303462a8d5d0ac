"""Tests of catalogue.py: files of a folder as entries, entry points of third parties, and names that do not exist."""

import importlib
import sys

import pytest

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import MissingPackageError, UnknownNameError

PACKAGE = "house_of_tools.cellar.tools"  # two folders down: the group names the first and the last
GROUP = "house_of_tools.tools"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A package with two entries, one file that is none, and a catalogue over it."""
    folder = tmp_path / "site" / PACKAGE.replace(".", "/")
    folder.mkdir(parents=True)
    for package in (folder, *folder.parents[:2]):
        (package / "__init__.py").write_text("")
    (folder / "saw.py").write_text("TOOL = 'cuts'\n")
    (folder / "hammer.py").write_text("TOOL = 'strikes'\n")
    (folder / "_handle.py").write_text("TOOL = 'none'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield Catalogue(PACKAGE, "TOOL", "tool")
    for name in [name for name in sys.modules if name.split(".")[0] in ("house_of_tools", "other_vendor")]:
        del sys.modules[name]


@pytest.fixture
def vendor(tmp_path, shelf):
    """An installed distribution of a third party that registers the tool 'drill'."""
    site = tmp_path / "site"
    (site / "other_vendor.py").write_text("DRILL = 'turns'\n")
    facts = site / "other_vendor-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: other_vendor\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{GROUP}]\ndrill = other_vendor:DRILL\n")
    importlib.invalidate_caches()


def test_names_are_the_files_in_order_without_those_that_start_with_an_underscore(shelf):
    assert shelf.names() == ("hammer", "saw")


def test_names_imports_no_entry(shelf):
    shelf.names()

    assert f"{PACKAGE}.hammer" not in sys.modules


def test_get_gives_the_constant_of_the_file(shelf):
    assert shelf.get("saw") == "cuts"


def test_get_imports_no_other_entry(shelf):
    shelf.get("saw")

    assert f"{PACKAGE}.hammer" not in sys.modules


def test_unknown_name_says_what_kind_of_thing_is_missing(shelf):
    with pytest.raises(UnknownNameError) as caught:
        shelf.get("hamer")

    assert str(caught.value) == "no tool is called 'hamer'"


def test_unknown_name_names_the_nearest(shelf):
    with pytest.raises(UnknownNameError) as caught:
        shelf.get("hamer")

    assert caught.value.hint == "did you mean 'hammer'?"


def test_unknown_name_is_a_wrong_request(shelf):
    with pytest.raises(UnknownNameError) as caught:
        shelf.get("hamer")

    assert caught.value.exit_code == 2


def test_unknown_name_lists_all_where_none_is_near(shelf):
    with pytest.raises(UnknownNameError) as caught:
        shelf.get("xyz")

    assert caught.value.hint == "known: hammer, saw"


def test_a_file_with_an_underscore_cannot_be_had_by_its_name(shelf):
    with pytest.raises(UnknownNameError, match="no tool is called '_handle'"):
        shelf.get("_handle")


def test_names_holds_what_a_third_party_registers(shelf, vendor):
    assert shelf.names() == ("drill", "hammer", "saw")


def test_get_gives_what_a_third_party_registers(shelf, vendor):
    assert shelf.get("drill") == "turns"


def test_an_entry_is_found_under_a_former_name_of_the_group_too(shelf, vendor):
    moved = Catalogue("house_of_tools.cellar", "TOOL", "tool", former_groups=(GROUP,))

    assert moved.get("drill") == "turns"


def test_a_third_party_counts_among_the_nearest_names(shelf, vendor):
    with pytest.raises(UnknownNameError) as caught:
        shelf.get("dril")

    assert caught.value.hint == "did you mean 'drill'?"


@pytest.mark.parametrize("source", ["import a_package_that_is_not_there\nDRILL = 1\n", "OTHER = 1\n"])
def test_third_partys_entry_that_cannot_be_imported_is_named_with_its_package(source, vendor, shelf, tmp_path):
    (tmp_path / "site" / "other_vendor.py").write_text(source)

    with pytest.raises(
        MissingPackageError, match=r"tool 'drill' of package 'other_vendor' \(other_vendor:DRILL\)"
    ) as caught:
        shelf.get("drill")

    assert caught.value.hint.endswith("pip uninstall other_vendor")
