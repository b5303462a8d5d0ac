"""What is read of a Jetson's files.

A recorded board is tests/gauges/trees/orin-nano-super (its README names the sources). The lines here are composed from
lines that owners of boards published, not one board's: the release line of R36.4.0 and that of a Jetson Nano (R32.3.1,
rt-net/JetsonNano_DT_SPI, thread 9), the modes of an Orin Nano before Super, and nvpmodel's status in the two forms that
it has had. The capabilities are those of jetson_stats (jtop/core/jetson_variables.py).
"""

from pathlib import Path

import pytest

from deploy_kit.machine import jetson

ORIN = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.0, GCID: 37537400, BOARD: generic, EABI: aarch64, "
    "DATE: Fri Sep 13 04:36:44 UTC 2024\n# KERNEL_VARIANT: oot\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "proc/device-tree/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,p3767-0005\0nvidia,tegra234\0",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "etc/nvpmodel.conf": "# < POWER_MODEL ID=id_num NAME=mode_name >\n< POWER_MODEL ID=0 NAME=15W >\n"
    "CPU_ONLINE CORE_0 1\n\n< POWER_MODEL ID=1 NAME=7W >\nCPU_ONLINE CORE_0 1\n",
    "var/lib/dpkg/status": "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.1+b123\n\n"
    "Package: nvidia-jetpack-dev\nStatus: install ok installed\nVersion: 9\n\n"
    "Package: tensorrt\nStatus: install ok installed\nVersion: 10.3.0.30-1+cuda12.5\n",
}


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_an_orin_nano_says_all_of_itself(tmp_path: Path) -> None:
    assert jetson.describe_jetson(tree(tmp_path, ORIN)) == jetson.Jetson(
        board="NVIDIA Jetson Orin Nano Developer Kit",
        l4t="36.4.0",
        jetpack="6.1+b123",
        tensorrt="10.3.0.30-1+cuda12.5",
        power_mode="7W",
        cuda_capability="8.7",
    )


def test_a_recorded_orin_nano_says_what_its_owner_saw() -> None:
    found = jetson.describe_jetson(Path(__file__).parents[1] / "support/trees/orin-nano-super")

    assert (found.l4t, found.power_mode, found.cuda_capability) == ("36.4.3", "25W", "8.7")
    assert found.board == "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"


def test_a_machine_that_is_no_jetson_says_nothing(tmp_path: Path) -> None:
    assert set(vars(jetson.describe_jetson(tmp_path)).values()) == {""}


def test_an_older_release_line_is_read_too(tmp_path: Path) -> None:
    line = "# R32 (release), REVISION: 3.1, GCID: 18186506, BOARD: t210ref, EABI: aarch64, DATE: Tue Dec 10 06:58:34"

    assert jetson.describe_jetson(tree(tmp_path, {"etc/nv_tegra_release": line})).l4t == "32.3.1"


@pytest.mark.parametrize(
    ("status", "mode"), [("pmode:0000 fmode:quiet", "15W"), ("pmode:0009", "mode 9"), ("", ""), ("nonsense", "")]
)
def test_the_power_mode_has_its_name(tmp_path: Path, status: str, mode: str) -> None:
    assert jetson.describe_jetson(tree(tmp_path, ORIN | {"var/lib/nvpmodel/status": status})).power_mode == mode


def test_a_package_that_was_removed_is_not_told(tmp_path: Path) -> None:
    status = "Package: tensorrt\nStatus: deinstall ok config-files\nVersion: 8.5\n"

    assert jetson.describe_jetson(tree(tmp_path, {"var/lib/dpkg/status": status})).tensorrt == ""
