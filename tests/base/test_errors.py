"""Tests of errors.py: exit codes, hints, and the nearest known name."""

import inspect
from pathlib import Path

import pytest

from deploy_kit.base import errors
from deploy_kit.base.errors import CheckpointError, DeployKitError, nearest, no_such_file

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
EXIT_CODES = {
    "DeployKitError": 70,
    "RequestError": 2,
    "RecipeError": 2,
    "UnknownNameError": 2,
    "InputError": 2,
    "CheckpointError": 2,
    "MissingPackageError": 3,
    "DeviceError": 4,
    "LinkLostError": 4,
    "StageError": 5,
    "ExportError": 5,
    "SimplifyError": 5,
    "QuantizeError": 5,
    "SlimError": 5,
    "BuildError": 5,
    "CheckError": 5,
    "EngineCrashError": 5,
    "OutputError": 5,
    "StoreError": 5,
    "MeasurementError": 6,
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_ends_with_the_exit_code_it_is_documented_with(cls):
    error = cls("here: expected a, found b")

    assert error.exit_code == EXIT_CODES[cls.__name__]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_is_caught_as_the_root(cls):
    assert issubclass(cls, DeployKitError)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_stands_in_the_tree_of_the_docstring(cls):
    assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_error_is_named_error(cls):
    assert cls.__name__.endswith("Error")


def test_message_is_the_text_of_the_error():
    error = DeployKitError("recipe.name: expected str, found 3")

    assert str(error) == "recipe.name: expected str, found 3"


def test_hint_is_kept_beside_the_message():
    error = DeployKitError("recipe: no such key", hint="did you mean 'name'?")

    assert error.hint == "did you mean 'name'?"


def test_hint_is_empty_where_nothing_is_known():
    assert DeployKitError("broken").hint == ""
    assert "export the network to ONNX" in CheckpointError("broken").hint


def test_a_failed_check_needs_no_error_because_no_class_ends_with_exit_code_1():
    assert 1 not in {cls.exit_code for cls in CLASSES}


def test_nearest_names_what_was_probably_meant():
    assert nearest("tensort", ["onnxruntime", "openvino", "tensorrt"]) == "did you mean 'tensorrt'?"


def test_nearest_lists_all_in_order_where_nothing_is_near():
    assert nearest("xyz", ["openvino", "onnxruntime"]) == "known: onnxruntime, openvino"


def test_a_missing_file_s_refusal_names_the_neighbour_that_was_probably_meant(tmp_path: Path):
    (tmp_path / "best.pth.tar").touch()
    (tmp_path / "val").mkdir()

    assert no_such_file(tmp_path / "bset.pth.tar").hint == f"did you mean '{tmp_path / 'best.pth.tar'}'?"
    assert no_such_file(tmp_path / "vall", "file or folder").hint == f"did you mean '{tmp_path / 'val'}'?"
    assert no_such_file(tmp_path / "other.onnx", hint="export it").hint == "export it"
    assert str(no_such_file(tmp_path / "gone" / "a.onnx")) == f"{tmp_path / 'gone' / 'a.onnx'}: no such file"


def test_nearest_says_nothing_where_nothing_is_known():
    assert nearest("xyz", []) == ""


def test_nearest_reads_an_iterator_once():
    assert nearest("xyz", iter(["b", "a"])) == "known: a, b"
