"""Facts in the forms in which machines state them, and what is said of each: what will not work, and what to do."""

from dataclasses import replace

import pytest

from deploy_kit.recipe.compatibility.judge import CompatibilityVerdict, MachineFacts, driver_of, judge_machine

# In the forms of device tree, release file and /proc/driver/nvidia/version; the machines are composed, not recorded.
ORIN = MachineFacts(
    board="NVIDIA Jetson AGX Orin Developer Kit",
    l4t="36.4.3",
    python="3.10.12",
    versions={"tensorrt": "10.3.0"},
)
ORIN_7 = replace(
    ORIN,
    l4t="39.2.0",
    python="3.12.3",
    versions={"tensorrt": "10.16.2.10"},
)
THOR = replace(
    ORIN_7, board="NVIDIA Jetson AGX Thor Developer Kit", l4t="38.4.0",
    versions={"tensorrt": "10.13.3"},
)  # fmt: skip
XAVIER = replace(
    ORIN, board="NVIDIA Jetson Xavier NX Developer Kit", l4t="35.4.1",
    python="", versions={"tensorrt": "8.5.2.2"},
)  # fmt: skip
PC = MachineFacts(
    sm="8.9",
    driver=driver_of("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024"),
    cuda="12.6",
    python="3.12.3",
    versions={"tensorrt": "10.14.1"},
)


def said(facts: MachineFacts, code: str) -> CompatibilityVerdict:
    """Give the one verdict of a code."""
    (found,) = (verdict for verdict in judge_machine(facts) if verdict.code == code)
    return found


def codes(facts: MachineFacts, *levels: str) -> list[str]:
    return [verdict.code for verdict in judge_machine(facts) if verdict.level in levels]


@pytest.mark.parametrize("facts", [ORIN, THOR, PC], ids=["Orin", "Thor", "PC"])
def test_a_machine_as_its_maker_ships_it_has_no_error(facts: MachineFacts) -> None:
    assert codes(facts, "error", "warning") == []


def test_nothing_known_is_nothing_judged() -> None:
    assert judge_machine(MachineFacts()) == ()


def test_every_verdict_but_a_note_has_a_fix() -> None:
    machines = (ORIN, ORIN_7, THOR, XAVIER, PC, replace(PC, sm="6.1"), replace(PC, driver="470.57.02"))

    assert all(v.fix or v.level == "note" for facts in machines for v in judge_machine(facts))


def test_a_release_that_nobody_knows_is_said() -> None:
    found = said(replace(ORIN, l4t="36.9.9"), "DEV001")

    assert (found.level, found.text) == ("warning", "L4T 36.9.9 is not in the table: nothing is known of its JetPack")


def test_a_jetpack_says_what_it_ships() -> None:
    assert said(ORIN, "DEV002").text == "JetPack 6.2 (L4T 36.4.3) ships TensorRT 10.3, CUDA 12.6, Python 3.10"


def test_a_jetpack_for_another_family_is_an_error() -> None:
    found = said(replace(THOR, board="NVIDIA Jetson Orin NX Engineering Reference"), "DEV003")

    assert (found.level, found.text) == ("error", "JetPack 7.1 does not support Orin NX, only Thor")


def test_a_tensorrt_that_is_not_the_jetpack_s_is_warned_of() -> None:
    found = said(replace(ORIN, versions={"tensorrt": "10.14.1"}), "DEV004")

    assert found.text == "TensorRT 10.14.1 is installed, and JetPack 6.2 ships 10.3"
    assert "--system-site-packages" in found.fix


@pytest.mark.parametrize(
    ("facts", "tensorrt", "level", "words"),
    [
        (ORIN, "11.2.1", "error", "TensorRT 11.2.1 supports no JetPack, here is 6.2"),
        (ORIN, "11.4.1", "error", "needs JetPack 7.2.2 on Thor or Orin, here is 6.2"),
        (ORIN_7, "11.4.1", "error", "needs JetPack 7.2.2 on Thor or Orin, here is 7.2"),
        (THOR, "11.0.0", "warning", "sources disagree"),
    ],
)
def test_tensorrt_11_is_held_against_the_jetpack(facts: MachineFacts, tensorrt: str, level: str, words: str) -> None:
    found = said(replace(facts, versions={"tensorrt": tensorrt}), "DEV005")

    assert found.level == level
    assert words in found.text


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (ORIN, "TensorRT 10.3.0 drives the DLA of AGX Orin"),
        (ORIN_7, "TensorRT 10.16.2.10 does not drive the DLA of AGX Orin"),
        (THOR, "AGX Thor has no DLA"),
        (replace(ORIN, board="NVIDIA Jetson Orin Nano Developer Kit"), "Orin Nano has no DLA"),
        (XAVIER, "TensorRT 8.5.2.2 drives the DLA of Xavier NX"),
        (replace(ORIN, versions={}), "TensorRT 10.3 drives the DLA of AGX Orin"),
        (replace(ORIN_7, versions={"tensorrt": "11.4.1"}), "TensorRT 11.4.1 does not drive the DLA of AGX Orin"),
    ],
)
def test_whether_a_dla_can_be_used_is_said(facts: MachineFacts, text: str) -> None:
    assert said(facts, "DEV006").text == text


@pytest.mark.parametrize(
    ("sm", "tensorrt", "last", "fix"),
    [
        ("7.0", "10.5.0", "10.4", "or pip install 'tensorrt==10.4.*'"),
        ("6.1", "10.3.0", "9", "take the onnxruntime engine"),
        ("5.2", "10.3.0", "8.6", "take the onnxruntime engine"),
    ],
)
def test_a_gpu_that_tensorrt_dropped_is_an_error(sm: str, tensorrt: str, last: str, fix: str) -> None:
    found = said(replace(PC, sm=sm, versions={"tensorrt": tensorrt}), "DEV007")

    assert (found.level, found.fix.endswith(fix)) == ("error", True)
    assert f"{last} was the last" in found.text


def test_the_last_tensorrt_of_a_gpu_still_works() -> None:
    assert codes(replace(PC, sm="7.0", versions={"tensorrt": "10.4.0"}), "error") == []


@pytest.mark.parametrize(
    ("facts", "without"),
    [(ORIN, "not in fp8"), (XAVIER, "not in bf16, fp8"), (replace(PC, sm="7.5"), "not in bf16, fp8")],
)
def test_precisions_that_a_gpu_does_not_compute_in_are_said(facts: MachineFacts, without: str) -> None:
    assert said(facts, "DEV008").text.endswith(without)


def test_a_gpu_with_every_precision_lacks_none() -> None:
    assert said(PC, "DEV008").text == "compute capability 8.9 (Ada Lovelace) computes in fp32, fp16, bf16, fp8, int8"


def test_a_driver_older_than_its_cuda_is_an_error_with_both_ways_out() -> None:
    found = said(replace(PC, cuda="13"), "DEV009")

    assert (found.level, found.text) == ("error", "driver 550.54.15 is too old for CUDA 13, which needs 580")
    assert found.fix.endswith("pip install tensorrt-cu12")


def test_a_jetson_s_driver_is_not_counted_like_a_pc_s() -> None:
    assert codes(replace(ORIN, driver="540.4.0", cuda="13.0"), "error") == []


def test_a_python_too_old_for_the_worker_is_an_error() -> None:
    found = said(XAVIER, "DEV010")

    assert (found.level, found.text[:27]) == ("error", "JetPack 5.1.2's Python 3.8 ")
    assert said(MachineFacts(python="3.9.2"), "DEV010").fix == "install Python 3.10 or later"


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(PC, versions={"tensorrt": "10.2.0"}), "tensorrt 10.2.0: builds end in an error"),
        (replace(PC, versions={"tensorrt": "11.1.0"}), "wrong outputs without a warning"),
        (ORIN_7, "did not build on Orin"),
        (MachineFacts(versions={"openvino": "2026.2.0"}), "on processors with AMX"),
        (MachineFacts(versions={"openvino": "2026.4.1"}), "segmentation fault"),
        (MachineFacts(versions={"onnxruntime": "1.19.2"}), "int32 biases overflow"),
    ],
)
def test_a_release_known_to_be_bad_is_named_with_a_way_around(facts: MachineFacts, words: str) -> None:
    found = said(facts, "DEV011")

    assert words in found.text
    assert found.fix


def test_a_fault_of_one_gpu_is_not_held_against_another() -> None:
    thor = replace(THOR, l4t="39.2.0", versions={"tensorrt": "10.16.2.10"})

    assert codes(thor, "warning") == []


def test_a_plan_of_another_version_is_an_error() -> None:
    found = said(replace(PC, plan=("tensorrt", "10.13.3")), "DEV012")

    assert found.text == "the plan was built by tensorrt 10.13.3 and does not load in 10.14.1"
    assert codes(replace(PC, plan=("tensorrt", "10.14.1")), "error") == []


@pytest.mark.parametrize(
    ("built", "loads"),
    [("10.13.3", True), ("10.14.0", True), ("10.15.1", False), ("9.2.0", False), ("8.6.1", True), ("11.0.0", False)],
)
def test_a_version_compatible_plan_loads_in_later_versions_that_nvidia_names(built: str, loads: bool) -> None:
    facts = replace(PC, plan=("tensorrt", built), plan_outlives=True)

    assert ("DEV012" not in codes(facts, "error")) is loads


def test_a_version_compatible_plan_that_does_not_load_is_said_to_be_one() -> None:
    found = said(replace(PC, plan=("tensorrt", "10.15.1"), plan_outlives=True), "DEV012")

    assert found.text == (
        "the plan was built by tensorrt 10.15.1 and does not load in 10.14.1, though it was built version-compatible"
    )


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build", "580.65.06"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  540.4.0  Release Build", "540.4.0"),
        ("no GPU", ""),
    ],
)
def test_the_driver_is_read_from_its_own_words(text: str, driver: str) -> None:
    assert driver_of(text) == driver
