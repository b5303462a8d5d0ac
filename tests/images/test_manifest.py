"""Tests of images/manifest.py: which images a CSV file names and what they show; wrong lines are told by number."""

import numpy as np
import pytest
from image_sets import GRAY, opened, pixels, refused, save

from deploy_kit import images
from deploy_kit.base.errors import InputError


@pytest.fixture
def desk(tmp_path):
    """A folder with the images a.png … d.png in it."""
    for name, image in zip("abcd", pixels(4, 4, 6), strict=True):
        save(tmp_path / f"{name}.png", image)
    return tmp_path


def manifest(folder, *lines):
    """Write a manifest and give its path."""
    (folder / "set.csv").write_text("\n".join(lines) + "\n")
    return folder / "set.csv"


def kept(path):
    """Open with bad lines left out."""
    return images.open_set(str(path), GRAY, skip_bad=True)


# What it says


@pytest.mark.parametrize("column", ["path", "image", "file", "filename", "Image Index", "Path"])
def test_the_column_of_files_has_one_of_several_names(desk, column):
    assert opened(manifest(desk, column, "b.png", "a.png")).files == ("b.png", "a.png")


def test_images_come_in_the_order_of_the_lines(desk):
    found = opened(manifest(desk, "path", "c.png", "a.png"))

    assert np.array_equal(
        next(found.batches(GRAY, 2)), [images.to_tensors(pixels(4, 4, 6)[index], GRAY) for index in (2, 0)]
    )


def test_files_are_relative_to_the_folder_of_the_manifest(desk):
    (desk / "lists").mkdir()

    assert opened(manifest(desk / "lists", "path", "../a.png")).n == 1


def test_one_column_means_no_labels(desk):
    found = opened(manifest(desk, "path", "a.png"))

    assert (found.labels, found.classes) == (None, ())


def test_whole_numbers_are_the_labels(desk):
    found = opened(manifest(desk, "path,label", "a.png,7", "b.png,0", "c.png,3.0"))

    assert (found.labels.tolist(), found.labels.dtype, found.classes) == ([7, 0, 3], np.int64, ())


def test_names_of_classes_are_numbered_in_their_order(desk):
    found = opened(manifest(desk, "path,label", "a.png,dog", "b.png,cat", "c.png,dog"))

    assert (found.labels.tolist(), found.classes) == ([1, 0, 1], ("cat", "dog"))


def test_a_list_of_classes_gives_the_numbers_that_the_model_has(desk):
    (desk / "classes.txt").write_text("dog\nbird\ncat\n")

    found = opened(manifest(desk, "path,label", "a.png,dog", "b.png,cat"))

    assert (found.labels.tolist(), found.classes) == ([0, 2], ("dog", "bird", "cat"))


def test_names_with_bars_between_them_are_several_labels(desk):
    """As in ChestX-ray14's Data_Entry_2017.csv, whose other columns say nothing of classes."""
    header = "Image Index,Finding Labels,Follow-up #,Patient Age"
    rows = ("a.png,Hernia|Mass,0,58", "b.png,No Finding,1,60", "c.png,Mass,2,61")
    found = opened(manifest(desk, header, *rows))

    assert (found.labels.tolist(), found.labels.dtype, found.classes) == (
        [[1, 1], [0, 0], [0, 1]], np.uint8, ("Hernia", "Mass"),
    )  # fmt: skip


def test_findings_are_several_labels_even_if_no_image_has_two(desk):
    found = opened(manifest(desk, "Image Index,Finding Labels", "a.png,Mass", "b.png,No Finding"))

    assert (found.multilabel, found.labels.tolist()) == (True, [[1], [0]])


def test_a_column_a_class_is_several_labels(desk):
    found = opened(manifest(desk, "path,Mass,Hernia", "a.png,1,0", "b.png,0.0,1.0"))

    assert (found.labels.tolist(), found.multilabel, found.classes) == ([[1, 0], [0, 1]], True, ("Mass", "Hernia"))


def test_a_column_without_a_name_is_passed_over(desk):
    """Pandas writes its row numbers under no name."""
    assert opened(manifest(desk, ",path,Mass", "17,a.png,1")).labels.tolist() == [[1]]


@pytest.mark.parametrize("mark", [";", "\t"])
def test_other_delimiters_are_understood(desk, mark):
    assert opened(manifest(desk, f"path{mark}label", f"a.png{mark}3")).labels.tolist() == [3]


def test_a_mark_of_the_byte_order_and_empty_lines_do_not_matter(desk):
    path = manifest(desk, "path,label", "", "a.png,3", "")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())

    assert opened(path).labels.tolist() == [3]


def test_quoted_names_may_hold_commas(desk):
    assert opened(manifest(desk, "path,label", 'a.png,"dog, old"', "b.png,cat")).classes == ("cat", "dog, old")


def test_several_labels_tell_one_set_from_another(desk):
    one = opened(manifest(desk, "path,Mass,Hernia", "a.png,1,0", "b.png,0,0")).digest

    assert opened(manifest(desk, "path,Mass,Hernia", "a.png,0,1", "b.png,0,0")).digest != one
    assert opened(manifest(desk, "path,label", "a.png,1", "b.png,0")).digest != one


def test_the_first_images_keep_their_several_labels(desk):
    found = opened(manifest(desk, "path,Mass,Hernia", "a.png,1,0", "b.png,0,1")).first(1)

    assert (found.labels.tolist(), found.multilabel) == ([[1, 0]], True)


# What is wrong with it

BAD = {
    "a file that is not there": (("path,label", "a.png,1", "gone.png,2"), "line 3: no such file: {folder}/gone.png"),
    "a folder": (("path", "."), "line 2: no such file: {folder}"),
    "no file": (("path,label", "a.png,1", ",2"), "line 3: names no file"),
    "a file twice": (("path,label", "a.png,1", "b.png,2", "./a.png,1"), "line 4: './a.png' is in line 2 already"),
    "no label": (("path,label", "a.png,1", "b.png,"), "line 3: no label for 'b.png'"),
    "a name among numbers": (
        ("path,label", "a.png,1", "b.png,cat", "c.png,2"),
        "line 3: expected a whole number as label like most lines, found 'cat'",
    ),
    "a number among names": (
        ("path,label", "a.png,dog", "b.png,cat", "c.png,2"),
        "line 4: expected the name of a class as label like most lines, found '2'",
    ),
    "half a number": (
        ("path,label", "a.png,1", "b.png,2.5"), "line 3: expected a whole number as label like most lines, found '2.5'",
    ),
    "too few cells": (("path,label", "a.png,1", "b.png"), "line 3: expected 2 cells as in the first line, found 1"),
    "too many cells": (("path", "a.png", "b.png,2"), "line 3: expected 1 cells as in the first line, found 2"),
    "neither 0 nor 1": (
        ("path,Mass,Age", "a.png,1,0", "b.png,1,58"),
        "line 3: column 'Age': expected 0 or 1 (no column is called 'label'), found '58'",
    ),
    "nothing under a class": (
        ("path,Mass", "a.png,1", "b.png,"),
        "line 3: column 'Mass': expected 0 or 1 (no column is called 'label'), found no label for 'b.png'",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "message"), BAD.values(), ids=BAD)
def test_a_line_that_cannot_be_used_is_told_by_its_number(desk, lines, message):
    path = manifest(desk, *lines)

    error = refused(path)

    assert str(error) == f"{path}: {message.format(folder=desk)}"
    assert error.hint.startswith("mend or remove the line") and error.exit_code == 2


@pytest.mark.parametrize(("lines", "message"), [case for case in BAD.values() if len(case[0]) > 2])
def test_a_line_that_cannot_be_used_is_left_out_where_that_was_asked_for(desk, lines, message):
    found = kept(manifest(desk, *lines))

    ((_, why),) = found.skipped
    assert found.n == len(lines) - 2 == len(found.files)
    assert message.format(folder=desk).endswith(why)
    assert found.labels is None or len(found.labels) == found.n


def test_a_class_that_is_not_on_the_list_is_told(desk):
    (desk / "classes.txt").write_text("dog\ncat\n")
    path = manifest(desk, "path,label", "a.png,dog", "b.png,cats")

    assert str(refused(path)) == f"{path}: line 3: no class is called 'cats' in classes.txt (did you mean 'cat'?)"


def test_bad_lines_and_bad_files_are_counted_together(desk):
    (desk / "b.png").write_bytes(b"no image")

    found = kept(manifest(desk, "path,label", "a.png,1", "b.png,2", "gone.png,3"))

    assert (found.files, found.labels.tolist()) == (("a.png",), [1])
    assert [name for name, _ in found.skipped] == ["gone.png", "b.png"]
    assert found.left_out.startswith(f"{found.name}: 2 of 3 left out: gone.png: no such file")


def test_a_set_of_bad_lines_alone_is_refused(desk):
    path = manifest(desk, "path", "gone.png")

    with pytest.raises(InputError, match=r"expected at least one usable image, found none \(.*gone\.png"):
        kept(path)


def test_no_column_of_files_is_told_with_what_there_is(desk):
    path = manifest(desk, "picture,label", "a.png,1")

    error = refused(path)

    assert (str(error), error.hint) == (
        f"{path}: expected a column 'path' (or image, file, filename, image index), found picture, label",
        "the first line names the columns, e.g. path,label",
    )


def test_a_column_that_is_there_twice_is_told(desk):
    path = manifest(desk, "path,Mass,mass", "a.png,1,0")

    assert str(refused(path)) == f"{path}: the column 'mass' is there twice"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"path,label\n"])
def test_a_manifest_of_no_images_is_refused(desk, content):
    (desk / "set.csv").write_bytes(content)

    assert str(refused(desk / "set.csv")) == f"{desk / 'set.csv'}: expected at least one image, found none"


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\x00", b"path,label\na.png,\x00\n", b'path\n"a.png'])
def test_a_file_that_is_no_csv_is_refused(desk, content):
    (desk / "set.csv").write_bytes(content)

    error = refused(desk / "set.csv")

    assert str(error).startswith(f"{desk / 'set.csv'}: not a readable CSV file: ")
    assert error.hint == "expected text, e.g. path,label"
