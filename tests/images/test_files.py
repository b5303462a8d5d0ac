"""Tests of images/files.py: folders and image files; what cannot be read is named with its file."""

import dataclasses
import hashlib
import os
import sys

import numpy as np
import pytest
from image_sets import GRAY, RGB, color, gray, opened, pixels, refused, save
from PIL import Image

from deploy_kit import images
from deploy_kit.base.errors import InputError, MissingPackageError
from deploy_kit.records.artifacts import Preprocess

__all__ = ["color", "gray"]  # fixtures

# Folders


def test_a_folder_of_folders_is_labelled_by_their_names_in_order(tmp_path, gray):
    for name in ("dog/a.png", "cat/b.png", "cat/c.png"):
        save(tmp_path / name, gray)

    assert opened(tmp_path).labels.tolist() == [0, 0, 1]


def test_a_flat_folder_has_no_labels(tmp_path, gray):
    save(tmp_path / "a.png", gray)

    assert opened(tmp_path).labels is None


def test_what_lies_deeper_in_a_class_is_of_it(tmp_path, gray):
    for name in ("cat/b.png", "dog/young/c.png", "dog/d.png"):
        save(tmp_path / name, gray)

    assert opened(tmp_path).labels.tolist() == [0, 1, 1]


def test_folders_of_folders_alone_have_no_labels(tmp_path, gray):
    save(tmp_path / "all" / "cat" / "a.png", gray)

    assert opened(tmp_path).labels is None


def test_an_image_beside_class_folders_is_refused(tmp_path, gray):
    for name in ("cat/b.png", "sheet.png"):
        save(tmp_path / name, gray)

    error = refused(tmp_path)

    assert str(error).startswith(f"{tmp_path / 'sheet.png'}: lies beside folders of images")
    assert error.hint.startswith("move it into the folder of its class")


def test_what_begins_with_a_dot_is_passed_over(tmp_path, gray):
    for name in ("cat/b.png", ".cache/a.png", "cat/.ipynb_checkpoints/b.png", "._sheet.png"):
        save(tmp_path / name, gray)

    found = opened(tmp_path)

    assert (found.files, found.classes) == (("cat/b.png",), ("cat",))


def test_a_link_to_a_class_folder_is_followed_and_one_to_a_folder_above_is_not(tmp_path, gray):
    save(tmp_path / "elsewhere" / "a.png", gray)
    save(tmp_path / "set" / "cat" / "b.png", gray)
    (tmp_path / "set" / "dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "again").symlink_to(tmp_path / "set")

    found = opened(tmp_path / "set")

    assert (found.files, found.labels.tolist()) == (("cat/b.png", "dog/a.png"), [0, 1])


def test_folders_that_link_to_each_other_have_an_end(tmp_path, gray):
    for name, other in (("cat", "dog"), ("dog", "cat")):
        save(tmp_path / name / "a.png", gray)
        (tmp_path / name / "other").symlink_to(tmp_path / other)

    assert opened(tmp_path).files == ("cat/a.png", "cat/other/a.png", "dog/a.png", "dog/other/a.png")


@pytest.mark.parametrize("mode", ["LA", "1"])
def test_gray_with_transparency_or_of_one_bit_is_gray(tmp_path, gray, mode):
    Image.fromarray(gray).convert(mode).save(tmp_path / "a.png")

    assert opened(tmp_path).load(0).shape == gray.shape


def test_tiff_files_are_images(tmp_path, gray):
    save(tmp_path / "a.tif", gray)
    save(tmp_path / "b.TIFF", gray)

    assert np.array_equal(opened(tmp_path).load(1), gray)


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path):
    source = pixels(3, 4, 6)
    for name, image in zip(("b.png", "c.png", "a.PNG"), source, strict=True):
        save(tmp_path / name, image)

    found = opened(tmp_path)

    assert np.array_equal([found.load(index) for index in range(3)], source[[2, 0, 1]])


def test_a_folder_is_hashed_by_its_files(tmp_path, gray):
    save(tmp_path / "a.png", gray)

    assert opened(tmp_path).hashes == (hashlib.sha256((tmp_path / "a.png").read_bytes()).hexdigest(),)


def test_files_that_are_no_images_are_passed_over(tmp_path, gray):
    save(tmp_path / "a.png", gray)
    (tmp_path / "labels.csv").write_text("a,3\n")

    assert opened(tmp_path).n == 1


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "labels.csv").write_text("a,3\n")

    error = refused(tmp_path)

    assert (str(error), error.hint) == (
        f"{tmp_path}: expected at least one image, found none",
        "images end in .apng, .bmp, .dib, .gif, .jfif, .jpe, .jpeg, .jpg, .pbm, .pgm, .png, .pnm, .ppm, .tif, .tiff, .webp",  # noqa: E501
    )


def test_an_image_file_that_changed_is_hashed_again(tmp_path, gray):
    save(tmp_path / "a.png", gray)
    before = opened(tmp_path).hashes
    save(tmp_path / "a.png", gray.T)
    os.utime(tmp_path / "a.png", ns=(1, 1))

    assert opened(tmp_path).hashes != before


def test_a_color_file_is_read_in_rgb_order(tmp_path, color):
    save(tmp_path / "a.png", color)

    assert np.array_equal(opened(tmp_path, RGB).load(0), color)


def test_transparency_is_left_out(tmp_path, color):
    save(tmp_path / "a.png", np.dstack([color, np.full((4, 6), 255, np.uint8)]))

    assert np.array_equal(opened(tmp_path, RGB).load(0), color)


def test_a_broken_image_file_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    found = opened(tmp_path)

    with pytest.raises(InputError) as caught:
        found.load(0)

    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: not a readable image: ")


def test_an_image_file_that_was_cut_off_is_named(tmp_path):
    save(tmp_path / "a.png", pixels(1, 64, 64)[0])
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    found = opened(tmp_path)

    with pytest.raises(InputError) as caught:
        list(found.batches(dataclasses.replace(GRAY, height=64, width=64), 1))

    assert str(caught.value).startswith(f"{tmp_path / 'a.png'}: not a readable image: ")


def test_reading_image_files_without_pillow_names_what_to_install(tmp_path, gray, monkeypatch):
    save(tmp_path / "a.png", gray)
    found = opened(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)

    with pytest.raises(MissingPackageError) as caught:
        found.load(0)

    assert (str(caught.value), caught.value.hint) == (
        "reading image files needs the package 'PIL', which is not installed here", "pip install 'pillow'",
    )  # fmt: skip


def test_sixteen_bit_images_are_refused_rather_than_cut_off_at_255(tmp_path):
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    preprocess = Preprocess(height=4, width=4, color="gray", mean=(0.0,), std=(1.0,))
    found = images.open_set(str(tmp_path), preprocess)

    with pytest.raises(InputError) as caught:
        found.load(0)

    assert "expected 8 bits a channel, found mode 'I;16'" in str(caught.value)
    assert caught.value.hint.startswith("convert the images to 8 bits")


# Names and numbers of classes


def classes(folder, *names):
    (folder / "classes.txt").write_text("\n".join(names) + "\n")


def test_a_class_is_named_by_its_folder(tmp_path, gray):
    for name in ("dog/a.png", "cat/b.png"):
        save(tmp_path / name, gray)

    assert opened(tmp_path).classes == ("cat", "dog")


def test_a_list_of_classes_gives_the_numbers_that_the_model_has(tmp_path, gray):
    for name in ("dog/a.png", "cat/b.png"):
        save(tmp_path / name, gray)
    classes(tmp_path, "dog", "bird", "cat")

    found = opened(tmp_path)

    assert (found.files, found.labels.tolist(), found.classes) == (
        ("cat/b.png", "dog/a.png"), [2, 0], ("dog", "bird", "cat"),
    )  # fmt: skip


def test_a_folder_of_a_class_without_images_keeps_its_number(tmp_path, gray):
    save(tmp_path / "dog" / "a.png", gray)
    (tmp_path / "cat").mkdir()

    assert opened(tmp_path).labels.tolist() == [1]


def test_a_folder_that_the_list_of_classes_lacks_is_named(tmp_path, gray):
    save(tmp_path / "dogs" / "a.png", gray)
    classes(tmp_path, "dog", "cat")

    error = refused(tmp_path)

    assert (str(error), error.hint) == (
        f"{tmp_path / 'classes.txt'}: no line names the class of the folder 'dogs'", "did you mean 'dog'?",
    )  # fmt: skip


def test_a_class_that_is_listed_twice_is_named(tmp_path, gray):
    save(tmp_path / "dog" / "a.png", gray)
    classes(tmp_path, "dog", "cat", "dog")

    assert str(refused(tmp_path)) == f"{tmp_path / 'classes.txt'}: the class 'dog' is there twice"


def test_a_list_of_classes_that_is_no_text_is_named(tmp_path, gray):
    save(tmp_path / "dog" / "a.png", gray)
    (tmp_path / "classes.txt").write_bytes(b"\xff\xfe\x00")

    assert str(refused(tmp_path)).startswith(f"{tmp_path / 'classes.txt'}: expected one name a line: ")


# What cannot be read


def spoil(path, how):
    """Make a file whose beginning is whole and whose rest is not."""
    smooth = Image.fromarray(pixels(1, 8, 8, 3)[0]).resize((256, 256))
    smooth.save(path, quality=95)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if how == "cut":
        path.write_bytes(content[:half])
    else:
        content[half : half + 200] = b"\xff\xc4" * 100  # a marker that has no place among coded pixels
        path.write_bytes(content)


@pytest.fixture
def mixed(tmp_path):
    """A folder of four images, two of which are broken."""
    for index, image in enumerate(pixels(2, 4, 6)):
        save(tmp_path / f"{index}.png", image)
    spoil(tmp_path / "broken.jpg", "bytes")
    spoil(tmp_path / "cut.png", "cut")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "how", "why"),
    [("a.jpg", "bytes", "broken data stream"), ("a.jpg", "cut", "truncated"), ("a.png", "cut", "truncated")],
)
def test_a_damaged_file_is_named_when_it_is_decoded(tmp_path, name, how, why):
    spoil(tmp_path / name, how)
    found = opened(tmp_path, RGB)

    with pytest.raises(InputError) as caught:
        list(found.batches(RGB, 1))

    assert str(caught.value).startswith(f"{tmp_path / name}: not a readable image: ") and why in str(caught.value)
    assert "--skip-bad" in caught.value.hint


def test_broken_images_are_left_out_where_that_was_asked_for(mixed):
    found = images.open_set(str(mixed), GRAY, skip_bad=True)

    assert (found.n, found.files, len(found.hashes)) == (2, ("0.png", "1.png"), 2)
    assert np.concatenate(list(found.batches(GRAY, 2))).shape == (2, 1, 4, 6)


def test_what_was_left_out_is_named_with_its_reason(mixed):
    found = images.open_set(str(mixed), GRAY, skip_bad=True)

    assert [name for name, _ in found.skipped] == ["broken.jpg", "cut.png"]
    assert all(why.startswith("not a readable image: ") for _, why in found.skipped)
    assert found.left_out.startswith(f"{mixed}: 2 of 4 left out: broken.jpg: not a readable image: ")


def test_only_the_first_of_many_are_told(tmp_path, gray):
    save(tmp_path / "z.png", gray)
    for index in range(5):
        (tmp_path / f"{index}.png").write_bytes(b"no image")

    told = images.open_set(str(tmp_path), GRAY, skip_bad=True).left_out

    assert "5 of 6 left out" in told and "2.png" in told and "3.png" not in told and told.endswith("; and 2 more")


def test_labels_stay_with_their_images_when_some_are_left_out(tmp_path, gray):
    for name in ("cat/b.png", "dog/c.png"):
        save(tmp_path / name, gray)
    (tmp_path / "cat" / "a.png").write_bytes(b"no image")

    found = images.open_set(str(tmp_path), GRAY, skip_bad=True)

    assert (found.files, found.labels.tolist()) == (("cat/b.png", "dog/c.png"), [0, 1])


def test_nothing_is_left_out_of_a_whole_set(tmp_path, gray):
    save(tmp_path / "a.png", gray)

    found = images.open_set(str(tmp_path), GRAY, skip_bad=True)

    assert (found.n, found.skipped, found.left_out) == (1, (), "")
    assert found.digest == opened(tmp_path).digest


def test_a_set_of_which_nothing_is_left_is_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")

    with pytest.raises(InputError) as caught:
        images.open_set(str(tmp_path), GRAY, skip_bad=True)

    assert str(caught.value).startswith(f"{tmp_path}: expected at least one usable image, found none ({tmp_path}: 1 of")


def test_a_file_that_is_mended_is_looked_at_again(tmp_path, gray):
    (tmp_path / "a.png").write_bytes(b"no image")
    save(tmp_path / "b.png", gray)
    before = images.open_set(str(tmp_path), GRAY, skip_bad=True).n
    save(tmp_path / "a.png", gray)

    assert (before, images.open_set(str(tmp_path), GRAY, skip_bad=True).n) == (1, 2)


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")

    assert str(refused(tmp_path)) == f"{tmp_path / 'a.png'}: cannot be read: No such file or directory"


def test_a_folder_that_must_not_be_read_is_named(tmp_path, gray, monkeypatch):
    """By a stand-in: root may read everything."""
    save(tmp_path / "cat" / "a.png", gray)
    scandir = os.scandir

    def guarded(top):
        if str(top).endswith("cat"):
            raise PermissionError(13, "Permission denied", str(top))
        return scandir(top)

    monkeypatch.setattr(os, "scandir", guarded)
    error = refused(tmp_path)

    assert (str(error), error.hint) == (
        f"{tmp_path / 'cat'}: not a readable folder: Permission denied", "check who may read it: ls -ld",
    )  # fmt: skip


def test_an_image_too_large_for_pillow_is_named(tmp_path, gray, monkeypatch):
    save(tmp_path / "a.png", gray)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)

    with pytest.raises(InputError, match=r"a\.png: not a readable image: Image size \(24 pixels\) exceeds"):
        opened(tmp_path).load(0)


def test_an_image_is_named_by_its_file_and_in_an_npz_by_its_number(tmp_path, gray):
    save(tmp_path / "cat" / "a.png", gray)

    assert (opened(tmp_path).name_of(0), images.open_set("synthetic", GRAY).name_of(3)) == ("cat/a.png", "image 3")


def test_the_first_images_keep_their_names(tmp_path):
    for index, image in enumerate(pixels(3, 4, 6)):
        save(tmp_path / f"{index}.png", image)

    found = opened(tmp_path).first(2)

    assert (found.n, found.files, len(found.hashes)) == (2, ("0.png", "1.png"), 2)


@pytest.mark.parametrize("ending", ["gif", "tiff", "webp", "png"])
def test_an_image_of_several_frames_is_none_and_can_be_left_out(tmp_path, ending):
    frames = [Image.new("L", (4, 4), level) for level in (0, 255)]
    frames[0].save(tmp_path / f"many.{ending}", save_all=True, append_images=frames[1:])
    frames[0].save(tmp_path / f"one.{ending}")
    preprocess = Preprocess(height=4, width=4, color="gray", mean=(0.0,), std=(1.0,))

    with pytest.raises(InputError, match="expected one image, found several frames or pages") as caught:
        list(images.open_set(str(tmp_path), preprocess).batches(preprocess, 2))

    assert "--skip-bad" in caught.value.hint
    left = images.open_set(str(tmp_path), preprocess, skip_bad=True)
    assert (left.n, [name for name, _ in left.skipped]) == (1, [f"many.{ending}"])
