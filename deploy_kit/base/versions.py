"""Versions as numbers: what decides the form of INT8, whose plans load. Standard library only: workers import it."""

INTEGER_MAXIMUM = "1.24"
"""The onnxruntime that computes the maximum of integers: 1.23.2 refuses it, 1.24.1 has it; both were tried."""

_ACROSS_MAJORS = {(8, 10), (10, 11)}  # TensorRT, Support Matrix, Engine Portability: built by, loaded by


def version_numbers(version: str) -> tuple[int, ...]:
    """Give the leading numbers of a version, e.g. ``10.16.2.10-1+cuda13.2`` → ``(10, 16, 2, 10)``; none if unknown."""
    found: list[int] = []
    for part in version.strip().split("."):
        digits = part[: next((i for i, letter in enumerate(part) if not letter.isdigit()), len(part))]
        if not digits:
            break
        found.append(int(digits))
        if digits != part:
            break
    return tuple(found)


def is_older(version: str, floor: str) -> bool:
    """Whether a version is known and comes before another; trailing parts that are missing count as equal."""
    mine, wanted = version_numbers(version), version_numbers(floor)
    length = min(len(mine), len(wanted))
    return mine[:length] < wanted[:length]


def loads_compatible(built: str, here: str) -> bool:
    """Whether a TensorRT loads a version-compatible plan of an older one, by NVIDIA's word."""
    if not is_older(built, here):
        return False
    majors = version_numbers(built)[0], version_numbers(here)[0]
    return majors[0] == majors[1] or majors in _ACROSS_MAJORS


def lacks_integer_maximum(onnxruntime: str) -> bool:
    """Whether an onnxruntime of this version cannot compute the maximum of integers; an unknown version can."""
    return is_older(onnxruntime, INTEGER_MAXIMUM)
