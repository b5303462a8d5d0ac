"""Tests of emulation.py: real ELF files of this machine, headers of others, and processors that name themselves."""

import platform
import struct
import sys
from pathlib import Path

import pytest

from deploy_kit.machine import emulation

# e_machine of the ELF specification's supplements.
X86_64, AARCH64, S390 = 62, 183, 22


def elf(path: Path, machine: int, *, order: str = "<") -> Path:
    """Write the first 20 bytes of a 64-bit ELF file."""
    ident = b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(10)
    path.write_bytes(ident + struct.pack(f"{order}HH", 2, machine))
    return path


def auxv(path: Path, entries: dict[int, int]) -> Path:
    path.write_bytes(b"".join(struct.pack("=QQ", *pair) for pair in entries.items()) + bytes(16))
    return path


def test_this_python_is_of_this_machine():
    known = {"x86_64": X86_64, "aarch64": AARCH64}

    assert emulation.elf_machine(Path(sys.executable)) == known[platform.machine()]


def test_the_kernel_says_the_same_of_the_running_process():
    assert emulation.elf_machine(Path("/proc/thread-self/exe")) == emulation.elf_machine(Path(sys.executable))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(tmp_path, order):
    assert emulation.elf_machine(elf(tmp_path / "a", S390, order=order)) == S390


@pytest.mark.parametrize("content", [b"", b"\x7fELF\x02\x01", b"#!/bin/sh\n" + bytes(30)])
def test_what_is_no_elf_file_has_no_machine(tmp_path, content):
    (tmp_path / "a").write_bytes(content)

    assert emulation.elf_machine(tmp_path / "a") == 0


def test_a_file_that_cannot_be_read_has_no_machine(tmp_path):
    assert emulation.elf_machine(tmp_path / "none") == 0


def test_a_program_under_another_machines_program_is_emulated(tmp_path):
    host, guest = elf(tmp_path / "qemu-aarch64-static", X86_64), elf(tmp_path / "python3", AARCH64)

    assert emulation.detect_emulator({}, running=host, program=str(guest)) == "qemu-aarch64-static"


def test_the_emulator_is_named_by_what_the_kernel_links_to(tmp_path):
    host, guest = elf(tmp_path / "qemu-aarch64", X86_64), elf(tmp_path / "python3", AARCH64)
    (tmp_path / "exe").symlink_to(host)

    assert emulation.detect_emulator({}, running=tmp_path / "exe", program=str(guest)) == "qemu-aarch64"


def test_a_program_that_the_kernel_runs_itself_is_not(tmp_path):
    program = elf(tmp_path / "python3", AARCH64)

    assert emulation.detect_emulator({}, running=program, program=str(program)) == ""


def test_a_machine_that_does_not_say_is_taken_for_real(tmp_path):
    program = elf(tmp_path / "python3", AARCH64)

    assert emulation.detect_emulator({}, running=tmp_path / "none", program=str(program)) == ""


@pytest.mark.parametrize(
    "facts",
    [
        {"model name": "QEMU TCG CPU version 2.5+"},
        {"CPU implementer": "0x00", "CPU architecture": "8", "CPU part": "0x051"},
    ],
    ids=["x86", "arm"],
)
def test_a_processor_that_qemu_translates_is_emulated(facts):
    assert emulation.detect_emulator(facts) == "qemu-system"


@pytest.mark.parametrize(
    "facts",
    [
        {"model name": "QEMU Virtual CPU version 2.5+"},  # `qemu64`: under KVM too
        {"CPU implementer": "0x41", "CPU part": "0xd42"},  # Cortex-A78AE
        {"CPU implementer": "0x41", "CPU part": "0x051"},
    ],
    ids=["qemu64", "cortex", "another's part 0x051"],
)
def test_a_processor_that_may_be_real_is_not(facts):
    assert emulation.detect_emulator(facts) == ""


def test_this_machine_is_real_to_its_own_python():
    assert emulation.detect_emulator({}) == ""


def test_arm_features_are_bits_of_the_auxiliary_vector(tmp_path):
    vector = auxv(tmp_path / "auxv", {6: 4096, 16: 1 << 20 | 1 << 22, 26: 1 << 13 | 1 << 14})

    assert emulation.arm_features(vector) == ("asimddp", "sve", "i8mm", "bf16")


def test_an_old_arm_processor_has_none_of_them(tmp_path):
    assert emulation.arm_features(auxv(tmp_path / "auxv", {16: 0b11})) == ()


def test_without_an_auxiliary_vector_no_feature_is_claimed(tmp_path):
    assert emulation.arm_features(tmp_path / "none") == ()
