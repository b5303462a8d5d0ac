"""The doctor: what works here, what installs the rest, and which recipes cannot work at all."""

import dataclasses
import re
from importlib.metadata import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from stand_ins import PretendLink

from deploy_kit import engines, recipe
from deploy_kit.analysis import doctor
from deploy_kit.analysis.doctor import DoctorFinding, DoctorReport
from deploy_kit.base import lazy
from deploy_kit.base.errors import EngineCrashError, MissingPackageError, RecipeError, UnknownNameError
from deploy_kit.devices.links import Connection
from deploy_kit.engines import _cuda
from deploy_kit.machine import environment
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Recipe
from deploy_kit.records.artifacts import BuiltFor
from deploy_kit.records.made_by import MadeBy

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

QUIET = dataclasses.replace(
    environment.describe_machine(),
    isa=("avx2", "avx512_vnni"),
    governor="performance",
    load=0.0,
    cores=2,
    virtual=False,
)


def changed(base: Recipe, table: str, value: dict[str, Any]) -> Recipe:
    """Give a recipe with some keys of a table replaced."""
    data = base.model_dump(mode="json", exclude_none=True)
    data[table] |= value
    return recipe.parse_recipe(data)


def row(diagnosis: DoctorReport, kind: str, name: str) -> DoctorFinding:
    return next(found for found in diagnosis.findings if (found.kind, found.name) == (kind, name))


@pytest.fixture(scope="module")
def diagnosis(connection: Connection) -> DoctorReport:
    """A real look at this machine."""
    return doctor.examine(connection)


@pytest.fixture
def idle(tmp_path: Path) -> PretendLink:
    """A link whose workers say that every engine can run."""
    return PretendLink(tmp_path, {"why_unavailable": {"why": ""}})


@pytest.mark.slow
def test_every_entry_of_both_catalogues_is_looked_at(diagnosis: DoctorReport) -> None:
    wanted = [("engine", name) for name in engines.CATALOGUE.names()]
    wanted += [("scheme", name) for name in schemes.CATALOGUE.names()]

    assert [(found.kind, found.name) for found in diagnosis.findings] == wanted


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "reference"])
def test_an_engine_of_the_processor_makes_and_runs(diagnosis: DoctorReport, name: str) -> None:
    found = row(diagnosis, "engine", name)

    assert (found.builds, found.runs, found.fix) == (True, True, "")


def test_an_entry_that_works_says_the_version_of_its_package(diagnosis: DoctorReport) -> None:
    assert row(diagnosis, "engine", "openvino").detail == environment.library_version("openvino")


@pytest.mark.skipif(not lazy.present("tensorrt_rtx"), reason=lazy.install_line("tensorrt_rtx"))
@pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")
def test_an_engine_that_builds_for_other_machines_makes_and_does_not_run(diagnosis: DoctorReport) -> None:
    found = row(diagnosis, "engine", "tensorrt_rtx")

    assert (found.builds, found.runs) == (True, False)
    assert found.detail.endswith("; no NVIDIA GPU on this machine")


def test_an_engine_that_only_builds_where_it_runs_does_neither(
    idle: PretendLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: True)
    idle.answers["why_unavailable"] = {"why": "no NVIDIA GPU on this machine"}

    found = row(doctor.examine(idle), "engine", "tensorrt")

    assert (found.builds, found.runs) == (False, False)


def test_a_missing_package_comes_with_the_line_that_installs_it(
    idle: PretendLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = "pip install 'deploykit[tensorrt]'"  # a device gives a line of its own
    monkeypatch.setattr(idle, "lacks", lambda package: line if package == "tensorrt" else "")

    found = row(doctor.examine(idle), "engine", "tensorrt")

    assert (found.builds, found.runs, found.fix) == (False, False, line)
    assert found.detail == "package 'tensorrt' is not installed"


def test_the_version_of_an_engine_is_the_one_on_the_device(idle: PretendLink) -> None:
    idle.environment = dataclasses.replace(QUIET, versions=(("openvino", "2025.3.0"),))

    assert row(doctor.examine(idle), "engine", "openvino").detail == "2025.3.0"


def test_a_scheme_without_its_package_cannot_be_made(idle: PretendLink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: package != "nncf")

    found = row(doctor.examine(idle), "scheme", "int8_nncf")

    assert (found.builds, found.runs, found.fix) == (False, None, "pip install 'deploykit[nncf]'")


def test_an_engine_that_crashes_is_a_row_and_not_the_end(idle: PretendLink) -> None:
    def die(asked: dict[str, str]) -> dict[str, str]:
        if asked["engine"] == "openvino":
            raise EngineCrashError("openvino: the worker process died with SIGILL", hint="another processor")
        return {"why": ""}

    idle.answers["why_unavailable"] = die

    found = row(doctor.examine(idle), "engine", "openvino")

    assert (found.builds, found.runs, found.fix) == (False, False, "another processor")


def test_every_extra_that_a_fix_names_is_declared() -> None:
    declared = metadata("deploykit").get_all("Provides-Extra") or []
    packages = [engines.CATALOGUE.get(name).package for name in engines.CATALOGUE.names()]
    packages += [schemes.CATALOGUE.get(name).package for name in schemes.CATALOGUE.names()]

    named = {extra for package in packages for extra in re.findall(r"\[(.+)\]", lazy.install_line(package))}

    assert named <= set(declared)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"isa": ("avx2",)}, "no VNNI"),
        ({"host": "Linux 6.1 aarch64", "isa": ("asimddp", "i8mm")}, "UMMLA (i8mm) here"),
        ({"host": "Linux 6.1 aarch64", "isa": ("asimddp",)}, "i8mm would do more"),
        ({"host": "Linux 6.1 aarch64"}, "neither asimddp nor i8mm"),
        ({"governor": "powersave"}, "governor is 'powersave'"),
        ({"load": 1.5}, "busy (load 1.5 on 2 cores)"),
        ({"virtual": True}, "virtual machine"),
        ({"cpu_limit": 1.5}, "the time of 1.5 of 2 cores: engines take 2 threads here"),
        ({"memory_limit_gib": 0.5}, "may use 0.5 of"),
    ],
)
def test_what_spoils_numbers_is_said(
    idle: PretendLink, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], word: str
) -> None:
    idle.environment = dataclasses.replace(QUIET, **changes)

    remarks = doctor.examine(idle).remarks

    assert [word in remark for remark in remarks] == [True]


def test_a_machine_at_rest_gets_no_remark(idle: PretendLink, monkeypatch: pytest.MonkeyPatch) -> None:
    idle.environment = QUIET

    assert doctor.examine(idle).remarks == ()


def test_versions_are_judged_by_the_table(idle: PretendLink) -> None:
    idle.environment = dataclasses.replace(
        QUIET,
        board="NVIDIA Jetson Orin Nano Developer Kit",
        l4t="36.4.3",
        versions=(("python", "3.10.12"), ("tensorrt", "11.2.1")),
    )

    found = {verdict.code: verdict for verdict in doctor.examine(idle).verdicts}

    assert (found["DEV005"].level, found["DEV006"].text) == ("error", "Orin Nano has no DLA")


def test_the_cuda_of_a_tensorrt_is_the_one_in_its_package_s_name() -> None:
    driver = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"
    machine = dataclasses.replace(
        QUIET, gpu=driver, versions=(("tensorrt", "10.14.1.48"), ("tensorrt-cu13", "10.14.1.48"))
    )

    facts = doctor.facts_of(machine)

    assert (facts.cuda, facts.driver, facts.tensorrt) == ("13", "550.54.15", "10.14.1.48")


def test_a_recipe_that_can_work_is_let_through(tiny: Recipe, connection: Connection) -> None:
    doctor.require(tiny, connection)


def test_an_unknown_pass_names_the_nearest(tiny: Recipe, connection: Connection) -> None:
    with pytest.raises(UnknownNameError, match="is called 'fold_constant'") as caught:
        doctor.require(changed(tiny, "simplify", {"passes": ["fold_constant"]}), connection)

    assert caught.value.hint == "did you mean 'fold_constants'?"


def test_an_unknown_pass_of_a_variant_names_the_nearest_before_any_work(tiny: Recipe, connection: Connection) -> None:
    variants = [{"name": "int8", "scheme": "fp16", "options": {"passes": ["relu_after_poll"]}}]

    with pytest.raises(UnknownNameError, match="is called 'relu_after_poll'") as caught:
        doctor.require(changed(tiny, "quantize", {"variants": variants}), connection)

    assert caught.value.hint == "did you mean 'relu_after_pool'?"


def test_an_unknown_scheme_names_the_nearest(tiny: Recipe, connection: Connection) -> None:
    variants = [{"name": "int8", "scheme": "int8_orrt"}]

    with pytest.raises(UnknownNameError, match="is called 'int8_orrt'") as caught:
        doctor.require(changed(tiny, "quantize", {"variants": variants}), connection)

    assert caught.value.hint == "did you mean 'int8_ort'?"


def test_an_unknown_engine_names_the_nearest(tiny: Recipe, connection: Connection) -> None:
    entries = [{"engine": "openvin", "variants": ["fp32"]}]

    with pytest.raises(UnknownNameError, match="no engine is called 'openvin'") as caught:
        doctor.require(changed(tiny, "build", {"engines": entries}), connection)

    assert caught.value.hint == "did you mean 'openvino'?"


def test_an_unknown_option_of_an_engine_is_refused_before_any_work(tiny: Recipe, connection: Connection) -> None:
    entries = [{"engine": "openvino", "variants": ["fp32"], "options": {"thread": 1}}]

    with pytest.raises(RecipeError, match="engine 'openvino': options: unknown key 'thread'") as caught:
        doctor.require(changed(tiny, "build", {"engines": entries}), connection)

    assert caught.value.hint == "did you mean 'threads'?"


def test_an_unknown_option_of_a_scheme_is_refused_before_any_work(tiny: Recipe, connection: Connection) -> None:
    variants = [{"name": "int8", "scheme": "int8_ort", "options": {"symetric": True}}]

    with pytest.raises(RecipeError, match="variant 'int8': options: unknown key 'symetric'") as caught:
        doctor.require(changed(tiny, "quantize", {"variants": variants}), connection)

    assert caught.value.hint == "did you mean 'symmetric'?"


def test_an_absent_package_is_refused_before_any_work(
    tiny: Recipe, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: package != "tensorrt")
    entries = [{"engine": "tensorrt", "variants": ["fp32"]}]

    with pytest.raises(MissingPackageError, match="engine 'tensorrt' needs the package 'tensorrt'") as caught:
        doctor.require(changed(tiny, "build", {"engines": entries}), connection)

    assert (caught.value.hint, caught.value.exit_code) == ("pip install 'deploykit[tensorrt]'", 3)


def test_an_absent_package_of_an_optional_entry_is_let_through(
    tiny: Recipe, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "present", lambda package: package != "tensorrt")
    entries = [{"engine": "tensorrt", "variants": ["fp32"], "optional": True}]

    doctor.require(changed(tiny, "build", {"engines": entries}), connection)


def test_an_optional_entry_with_a_wrong_name_is_still_refused(tiny: Recipe, connection: Connection) -> None:
    entries = [{"engine": "tensort", "variants": ["fp32"], "optional": True}]

    with pytest.raises(UnknownNameError, match="no engine is called 'tensort'"):
        doctor.require(changed(tiny, "build", {"engines": entries}), connection)


def test_an_engine_that_is_no_plan_loads_in_other_versions(line: "Line", idle: PretendLink) -> None:
    made = dataclasses.replace(line.built("fp32", "onnxruntime"), made_by=MadeBy(versions=(("onnxruntime", "1.30.0"),)))
    idle.environment = dataclasses.replace(QUIET, versions=(("onnxruntime", "1.31.1"),))

    assert "DEV012" not in [verdict.code for verdict in doctor.examine(idle, made).verdicts]


@pytest.mark.parametrize(("compatible", "held"), [((), True), (("ampere+",), True), (("version",), False)])
def test_a_plan_is_held_against_the_library_that_is_to_load_it(
    line: "Line", idle: PretendLink, compatible: tuple[str, ...], held: bool
) -> None:
    built = BuiltFor(
        package="tensorrt", version="10.3.0", capabilities=("8.7",), compatible=compatible, gpu="", driver="", host="",
        onnx_sha256="", engine_sha256="", options="{}",
    )  # fmt: skip
    made = dataclasses.replace(
        line.built("fp32", "onnxruntime"),
        engine="tensorrt",
        made_by=MadeBy(versions=(("tensorrt", "10.3.0"),)),
        built=built,
    )
    idle.environment = dataclasses.replace(QUIET, versions=(("tensorrt", "10.4.0"),))

    found = [verdict for verdict in doctor.examine(idle, made).verdicts if verdict.code == "DEV012"]

    assert [(verdict.level, "built by tensorrt 10.3.0" in verdict.text) for verdict in found] == [
        ("error", True)
    ] * held
