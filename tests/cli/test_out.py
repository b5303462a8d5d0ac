"""``--out``: a copy takes the place of an earlier copy, and of nothing else."""

from pathlib import Path

import pytest

from deploy_kit.cli import _steps
from deploy_kit.errors import InputError


def test_a_file_that_is_no_copy_of_ours_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"weights")

    with pytest.raises(InputError, match=r"mine\.pth: exists, and is no earlier copy of deploykit's"):
        _steps.verify_out(tmp_path / "mine.pth")

    assert (tmp_path / "mine.pth").read_bytes() == b"weights"


def test_an_earlier_copy_may_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "model.onnx.passport.json").write_text("{}")

    _steps.verify_out(tmp_path / "model.onnx")


def test_a_folder_that_does_not_exist_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        _steps.verify_out(tmp_path / "a b" / "model.onnx")

    assert caught.value.hint == f"mkdir -p '{tmp_path / 'a b'}'"
