"""Comparison of version numbers, and versions that behavior depends on. Standard library only: workers import it."""

INTEGER_MAXIMUM = "1.24"
"""First onnxruntime that computes the maximum of integers: tried with 1.23.2, which refuses it, and 1.24.1."""

_ACROSS_MAJORS = {(8, 10), (10, 11)}  # (built by, loaded by): TensorRT, Support Matrix, Engine Portability


def version_numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version, e.g. ``10.16.2.10-1+cuda13.2`` → ``(10, 16, 2, 10)``; empty if none."""
    numbers: list[int] = []
    for part in version.strip().split("."):
        digits = part[: next((i for i, letter in enumerate(part) if not letter.isdigit()), len(part))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def is_older(version: str, floor: str) -> bool:
    """Return whether `version` is known and lower than `floor`; trailing parts that are missing count as equal."""
    numbers, least = version_numbers(version), version_numbers(floor)
    length = min(len(numbers), len(least))
    return numbers[:length] < least[:length]


def loads_compatible(built: str, here: str) -> bool:
    """Return whether TensorRT `here` loads a version-compatible plan of the older version `built`, as NVIDIA states."""
    if not is_older(built, here):
        return False
    majors = version_numbers(built)[0], version_numbers(here)[0]
    return majors[0] == majors[1] or majors in _ACROSS_MAJORS


def lacks_integer_maximum(onnxruntime: str) -> bool:
    """Return whether this version of onnxruntime cannot compute the maximum of integers; an unknown version can."""
    return is_older(onnxruntime, INTEGER_MAXIMUM)
