"""Tests of lazy.py: what is said of a package that is absent, and of one that is there and does not load."""

import sys
from importlib.metadata import metadata

import pytest

from deploy_kit.base import lazy
from deploy_kit.base.errors import MissingPackageError


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Give a function that writes a package of one line and takes it out of memory afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    names = []

    def write(name, line):
        (tmp_path / f"{name}.py").write_text(line + "\n")
        names.append(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def test_an_installed_package_is_present(install):
    install("engine_that_is_here", "")

    assert lazy.present("engine_that_is_here")


def test_an_absent_package_is_not_present():
    assert not lazy.present("engine_that_nobody_wrote")


def test_present_does_not_import(install):
    install("engine_that_explodes", "raise RuntimeError")

    lazy.present("engine_that_explodes")

    assert "engine_that_explodes" not in sys.modules


def test_need_imports_the_package(install):
    install("engine_with_a_version", "version = '3.1'")

    assert lazy.need("engine_with_a_version", by="engine 'x'").version == "3.1"


def test_an_absent_package_is_named_with_who_needs_it():
    with pytest.raises(MissingPackageError) as caught:
        lazy.need("engine_that_nobody_wrote", by="engine 'x'")

    assert str(caught.value) == "engine 'x' needs the package 'engine_that_nobody_wrote', which is not installed here"


def test_an_absent_package_hints_the_line_that_installs_it():
    with pytest.raises(MissingPackageError) as caught:
        lazy.need("engine_that_nobody_wrote", by="engine 'x'")

    assert caught.value.hint == "pip install 'engine_that_nobody_wrote'"


def test_an_absent_package_ends_with_exit_code_3():
    with pytest.raises(MissingPackageError) as caught:
        lazy.need("engine_that_nobody_wrote", by="engine 'x'")

    assert caught.value.exit_code == 3


def test_an_absent_optional_engine_hints_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)

    with pytest.raises(MissingPackageError) as caught:
        lazy.need("tensorrt_rtx", by="engine 'tensorrt_rtx'")

    assert caught.value.hint == "pip install 'deploykit[tensorrt-rtx]'"


@pytest.mark.parametrize("kind", ["ImportError", "OSError"])
def test_a_package_that_does_not_load_is_told_from_one_that_is_absent(install, kind):
    install(f"engine_with_{kind.lower()}", f"raise {kind}('libnvinfer.so.10: cannot open shared object file')")

    with pytest.raises(MissingPackageError) as caught:
        lazy.need(f"engine_with_{kind.lower()}", by="engine 'x'")

    assert str(caught.value) == (
        f"engine 'x' needs the package 'engine_with_{kind.lower()}', which is installed but does not load: "
        "libnvinfer.so.10: cannot open shared object file"
    )


def test_a_package_that_does_not_load_hints_to_install_it_again(install):
    install("engine_that_does_not_load", "raise OSError('libnvinfer.so.10: cannot open shared object file')")

    with pytest.raises(MissingPackageError) as caught:
        lazy.need("engine_that_does_not_load", by="engine 'x'")

    assert caught.value.hint == "pip install 'engine_that_does_not_load' --force-reinstall"


def test_a_package_that_does_not_load_keeps_the_first_error_as_its_cause(install):
    install("engine_with_a_cause", "raise OSError('libnvinfer.so.10')")

    with pytest.raises(MissingPackageError) as caught:
        lazy.need("engine_with_a_cause", by="engine 'x'")

    assert isinstance(caught.value.__cause__, OSError)


def test_every_extra_that_is_hinted_exists():
    hinted = {line.split("[")[1].rstrip("]") for line in lazy.INSTALL.values() if "[" in line}

    assert hinted <= set(metadata("deploykit").get_all("Provides-Extra"))


@pytest.fixture
def managed(monkeypatch):
    monkeypatch.setattr(lazy, "externally_managed", lambda: True)


def test_where_pip_may_not_install_an_environment_of_its_own_is_the_cure(managed):
    line = lazy.install_line("tensorrt_rtx")

    assert line == "python3 -m venv ~/deploykit && ~/deploykit/bin/python3 -m pip install 'deploykit[tensorrt-rtx]'"


def test_where_pip_may_not_install_numpy_is_the_systems_package(managed):
    assert lazy.install_line("numpy", bare=True, python="/usr/bin/python3") == "sudo apt-get install python3-numpy"


def test_a_device_whose_python_is_the_systems_gets_an_environment_and_its_use():
    line = lazy.install_line("onnxruntime", bare=True, python="python3", managed=True)

    assert line.startswith(
        "python3 -m venv ~/deploykit && ~/deploykit/bin/python3 -m pip install 'numpy' 'onnxruntime', and use it: "
    )


def test_an_environment_of_its_own_is_not_managed():
    assert sys.prefix == sys.base_prefix or not lazy.externally_managed()


@pytest.mark.parametrize(("name", "package"), [("torch", None), ("openvino_that_is_absent", None), (None, None)])
def test_only_an_optional_package_that_is_absent_is_told_as_one(name, package):
    assert lazy.optional(ModuleNotFoundError("no module", name=name)) is package


def test_an_absent_optional_package_is_known_by_its_module(monkeypatch):
    monkeypatch.setattr(lazy, "present", lambda name: False)

    assert lazy.optional(ModuleNotFoundError("no module", name="torch.nn")) == "torch"
