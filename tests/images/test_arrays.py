"""Arrays of numpy's files: what their headers promise is there, and nothing else is read."""

import dataclasses
import errno
import warnings
import zipfile

import numpy as np
import pytest
from image_sets import GRAY, npz, opened, pixels, refused

from deploy_kit.base.errors import InputError
from deploy_kit.images.arrays import read_npy, write_npy


@pytest.mark.parametrize("doubled", ["images.npy", "images"])
def test_an_array_that_is_there_twice_is_refused(tmp_path, doubled):
    path = npz(tmp_path, images=pixels(3, 4, 6))
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own, of a name that is there twice
        archive.writestr(doubled, archive.read("images.npy"))

    assert str(refused(path)) == f"{path}: 'images.npy' is there 2 times: of several arrays none is taken"


@pytest.mark.parametrize("side", [1, 64])
def test_no_changed_byte_of_a_compressed_array_is_read_in_silence(tmp_path, side):
    source = pixels(3, side, 7 * side)
    np.savez_compressed(tmp_path / "set.npz", images=source)
    content = (tmp_path / "set.npz").read_bytes()
    preprocess = dataclasses.replace(GRAY, height=side, width=7 * side)

    for place in np.random.default_rng(0).integers(0, len(content), 200):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        (tmp_path / "set.npz").write_bytes(bytes(changed))
        try:
            found = opened(tmp_path / "set.npz", preprocess)
        except InputError:
            continue
        assert all(np.array_equal(found.load(index), source[index]) for index in range(3))


def test_an_npy_file_is_read_as_numpy_wrote_it(tmp_path):
    source = np.asfortranarray(pixels(1, 4, 6)[0]).astype(">i4")
    np.save(tmp_path / "mask.npy", source)

    assert np.array_equal(read_npy(tmp_path / "mask.npy"), source)


def test_what_is_written_is_what_numpy_writes(tmp_path):
    for number, array in enumerate(
        (pixels(1, 4, 6), np.asfortranarray(pixels(1, 4, 6)[0]), np.float32(2), np.zeros(0))
    ):
        write_npy(tmp_path / f"{number}.npy", array)
        np.save(tmp_path / "wanted.npy", array)

        assert (tmp_path / f"{number}.npy").read_bytes() == (tmp_path / "wanted.npy").read_bytes()


def test_a_file_that_cannot_be_written_whole_is_named_with_the_reason():
    with pytest.raises(OSError, match="No space left on device: '/dev/full'") as caught:
        write_npy("/dev/full", np.zeros(100_000))

    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")


NPY = {
    "cut off": (lambda content: content[:-1], "its header asks for 24 bytes of uint8, and it holds 23"),
    "appended to": (lambda content: content + b"\0", "its header asks for 24 bytes of uint8, and it holds 25"),
    "of a smaller shape": (lambda content: content.replace(b"(4, 6)", b"(3, 6)"), "asks for 18 bytes of uint8"),
    "negative sides": (
        lambda content: content.replace(b"(4, 6)", b"(-4,6)"),
        "its header asks for -24 bytes of uint8, and it holds 24",
    ),
    "no header": (lambda content: content[:20], "not a readable npy file"),
    "a zip": (lambda content: b"PK\3\4" + content, "not a readable npy file"),
    "empty": (lambda content: b"", "not a readable npy file"),
}


@pytest.mark.parametrize(("change", "said"), NPY.values(), ids=NPY)
def test_an_npy_file_of_other_size_than_its_header_says_is_refused(tmp_path, change, said):
    np.save(tmp_path / "mask.npy", pixels(1, 4, 6)[0])
    (tmp_path / "mask.npy").write_bytes(change((tmp_path / "mask.npy").read_bytes()))

    with pytest.raises(InputError, match=said) as caught:
        read_npy(tmp_path / "mask.npy")

    assert str(caught.value).startswith(str(tmp_path / "mask.npy"))
