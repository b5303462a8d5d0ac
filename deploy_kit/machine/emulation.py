"""Detection of emulators. Times taken under one measure the emulator, not the machine.

Two kinds are told apart:

- A program of another architecture under an emulator of user mode (qemu-user, FEX, Rosetta). It fakes
  ``/proc/self/exe``, but the kernel knows what it runs: ``/proc/thread-self/exe`` is the emulator, an ELF file of the
  host's architecture.
- A whole machine under QEMU's translator (TCG). QEMU's processor ``max`` identifies itself: as ``QEMU TCG CPU`` on x86,
  and on ARM by implementer 0 with part ``'Q'`` (QEMU, target/arm/tcg/cpu64.c, `aarch64_max_initfn`). Under KVM ``max``
  is the host's processor and has its name. Other processor models that QEMU translates cannot be told from real ones.
"""

import struct
import sys
from collections.abc import Mapping
from pathlib import Path

_RUNNING = Path("/proc/thread-self/exe")
_AUXV = Path("/proc/self/auxv")

# Entries of the auxiliary vector, and bits in them: Linux, arch/arm64/include/uapi/asm/hwcap.h.
_AT_HWCAP, _AT_HWCAP2 = 16, 26
_ARM_FEATURES = (
    ("asimddp", _AT_HWCAP, 20),
    ("sve", _AT_HWCAP, 22),
    ("i8mm", _AT_HWCAP2, 13),
    ("bf16", _AT_HWCAP2, 14),
)


def detect_emulator(cpu_facts: Mapping[str, str], running: Path = _RUNNING, program: str = sys.executable) -> str:
    """Return the name of the emulator that this process runs under; empty where none is found.

    Args:
        cpu_facts: Keys and values of the first processor in ``/proc/cpuinfo``.
        running: Link to the file that the kernel runs in this process.
        program: File that this process believes to be running.
    """
    host, guest = elf_machine(running), elf_machine(Path(program))
    if host and guest and host != guest:
        return running.resolve().name
    named = cpu_facts.get("model name", "").startswith("QEMU TCG CPU")
    part = (cpu_facts.get("CPU implementer"), cpu_facts.get("CPU part"))
    return "qemu-system" if named or part == ("0x00", "0x051") else ""


def elf_machine(path: Path) -> int:
    """Return the machine number (``e_machine``) in the header of an ELF file; 0 where the file is none."""
    try:
        with path.open("rb") as file:
            head = file.read(20)
    except OSError:
        return 0
    if len(head) < 20 or not head.startswith(b"\x7fELF"):
        return 0
    order = "<" if head[5] == 1 else ">"
    return int(struct.unpack_from(f"{order}H", head, 18)[0])


def arm_features(auxv: Path = _AUXV) -> tuple[str, ...]:
    """List the instruction sets that the auxiliary vector reports to a 64-bit ARM program.

    Under qemu-user ``/proc/cpuinfo`` describes the host's processor, the auxiliary vector the emulated one.
    """
    try:
        data = auxv.read_bytes()
    except OSError:
        return ()
    entries = dict(struct.iter_unpack("=QQ", data[: len(data) // 16 * 16]))
    return tuple(name for name, entry, bit in _ARM_FEATURES if entries.get(entry, 0) >> bit & 1)
