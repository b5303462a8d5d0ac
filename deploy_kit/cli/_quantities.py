"""Numbers as people type them on the command line: ``200ms``, ``3%``, ``0.3pt``, ``1,8``, ``224x224``."""

import math
import re
from collections.abc import Mapping

from deploy_kit.base.errors import RequestError

_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "m": 60.0}


def seconds(option: str, text: str | None) -> float | None:
    """Parse a time; a bare number is seconds.

    Raises:
        RequestError: It is not a time, or not above zero.
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+(?:e[-+]?[0-9]+)?)\s*([a-zµ]*)\s*", text)
    value = _number(match[1]) if match and (match[2] or "s") in _SECONDS else None
    if match is None or not value:
        raise RequestError(f"{option}: expected a time, found '{text}'", hint=f"e.g. {option} 200ms, or {option} 10s")
    return round(value * _SECONDS[match[2] or "s"], 9)


def days(option: str, text: str) -> float:
    """Parse a number of days: ``30d`` or ``0d``; the unit is required.

    Raises:
        RequestError: It is not one.
    """
    value = _number(text.strip().removesuffix("d").strip()) if text.strip().endswith("d") else None
    if value is None:
        raise RequestError(f"{option}: expected a number of days, found '{text}'", hint=f"e.g. {option} 30d")
    return value


def milliseconds(option: str, text: str | None) -> float | None:
    """Parse a time into milliseconds; a bare number is ambiguous here, so the unit is required.

    Raises:
        RequestError: It is not a time, or has no unit.
    """
    if text is not None and _number(text.strip()) is not None:
        raise RequestError(f"{option}: expected a time with its unit, found '{text}'", hint=f"e.g. {option} {text}ms")
    value = seconds(option, text)
    return None if value is None else round(1e3 * value, 9)


def percent(option: str, text: str | None) -> float | None:
    """Parse a percentage: ``3%`` or ``3`` as 3.

    Raises:
        RequestError: It is not a percentage, or below zero.
    """
    if text is None:
        return None
    value = _number(text.strip().removesuffix("%").strip())
    if value is None:
        raise RequestError(f"{option}: expected a percentage, found '{text}'", hint=f"e.g. {option} 3%")
    return value


def points(option: str, text: str | None) -> float | None:
    """Parse percentage points: ``0.3``, ``0.3pt`` or ``0.3pp`` as 0.3.

    Raises:
        RequestError: It is not a number, below zero, or a percentage, which could be relative to the accuracy.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(.*?)\s*(pt|pp|points)?", text.strip())
    value = _number(match[1]) if match else None
    if value is None:
        percent_of = text.strip().removesuffix("%").strip()
        example = percent_of if _number(percent_of) is not None else "0.3"
        raise RequestError(f"{option}: expected percentage points, found '{text}'", hint=f"e.g. {option} {example}pt")
    return value


def share(option: str, text: str | None) -> float | None:
    """Parse a share: ``92%``, or ``0.92``; a bare number above 1 could be either, so it is refused.

    Raises:
        RequestError: It is not a share between 0 and 100 %.
    """
    if text is None:
        return None
    value = _number(text.strip().removesuffix("%").strip())
    value = value / 100 if value is not None and text.strip().endswith("%") else value
    if value is None or value > 1:
        raise RequestError(f"{option}: expected a share, found '{text}'", hint=f"e.g. {option} 92%")
    return value


def megabytes(option: str, text: str | None) -> float | None:
    """Parse a file size into MB (10⁶ bytes): ``10MB``, ``500kB`` or ``0.5GB``; the unit is required.

    Raises:
        RequestError: It is not a size, not above zero, or has no unit.
    """
    return _with_unit(option, text, "a size", {"kB": 1e-3, "KB": 1e-3, "MB": 1.0, "GB": 1e3}, "10MB")


def millijoules(option: str, text: str | None) -> float | None:
    """Parse an energy into mJ: ``40mJ`` or ``0.04J``; the unit is required.

    Raises:
        RequestError: It is not an energy, not above zero, or has no unit.
    """
    return _with_unit(option, text, "an energy", {"uJ": 1e-3, "µJ": 1e-3, "mJ": 1.0, "J": 1e3}, "40mJ")


def watts(option: str, text: str | None) -> float | None:
    """Parse a power into W: ``10W`` or ``7500mW``; the unit is required.

    Raises:
        RequestError: It is not a power, not above zero, or has no unit.
    """
    return _with_unit(option, text, "a power", {"mW": 1e-3, "W": 1.0, "kW": 1e3}, "10W")


def _with_unit(option: str, text: str | None, what: str, units: Mapping[str, float], example: str) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"\s*([0-9.]+)\s*(\S+)\s*", text)
    value = _number(match[1]) if match and match[2] in units else None
    if match is None or not value:
        raise RequestError(f"{option}: expected {what} with its unit, found '{text}'", hint=f"e.g. {option} {example}")
    return round(value * units[match[2]], 9)


def names(text: str | None) -> tuple[str, ...]:
    """Parse a comma-separated list of names; empty if None."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def counts(option: str, text: str | None) -> list[int] | None:
    """Parse a comma-separated list of whole numbers above zero.

    Raises:
        RequestError: An entry is not one.
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in parts):
        raise RequestError(f"{option}: expected whole numbers above 0, found '{text}'", hint=f"e.g. {option} 1,8")
    return [int(part) for part in parts]


def whole_numbers(text: str, mark: str, example: str) -> list[int]:
    """Parse whole numbers between marks, e.g. ``224x224``.

    Raises:
        RequestError: They are not; the example is the hint.
    """
    try:
        return [int(part) for part in text.lower().split(mark)]
    except ValueError as error:
        raise RequestError(f"'{text}': expected whole numbers", hint=f"e.g. {example}") from error


def percentiles(option: str, text: str | None) -> list[float] | None:
    """Parse a comma-separated list of percentiles.

    Raises:
        RequestError: An entry is not a number between 0 and 100.
    """
    if text is None:
        return None
    values = [_number(part.strip().removeprefix("p")) for part in text.split(",")]
    if not all(value is not None and 0 < value < 100 for value in values):
        raise RequestError(
            f"{option}: expected numbers between 0 and 100, found '{text}'", hint=f"e.g. {option} 50,90,99"
        )
    return [value for value in values if value is not None]


def _number(text: str) -> float | None:
    """Parse a plain number; None for anything else, a sign, an infinity and NaN included."""
    value = float(text) if re.fullmatch(r"[0-9]+\.?[0-9]*(?:e[-+]?[0-9]+)?|\.[0-9]+", text) else math.inf
    return value if math.isfinite(value) else None
