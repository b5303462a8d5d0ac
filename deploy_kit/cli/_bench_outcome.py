"""How a bench ends: its record, the limits it does not keep, and the errors it raises."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from deploy_kit.base.errors import DeviceError, MeasurementError, StageError
from deploy_kit.cli import _steps, _tool_formats
from deploy_kit.records import codec
from deploy_kit.records.measurements import Bench, Comparison, Measurement
from deploy_kit.records.results import EngineRow


def record(
    measured: Bench, compared: Comparison | None = None, other_devices: Mapping[str, Bench] | None = None
) -> dict[str, Any]:
    """Return what ``bench --json`` prints: the record, and each measurement in the words of other tools.

    Args:
        measured: Bench of the first device.
        compared: Comparison with an earlier run, if there is one.
        other_devices: Benches of ``--beside``, by device.
    """
    comparison = {"comparison": codec.to_json(compared)} if compared else {}
    beside = {"beside": {name: record(bench) for name, bench in other_devices.items()}} if other_devices else {}
    summary = [_tool_formats.summary(m) for m in measured.measurements]
    return {**codec.to_json(measured), "summary": summary, **comparison, **beside}


def missed_limits(rows: Sequence[EngineRow]) -> list[str]:
    """List the limits that are not kept, each with its engine."""
    return [f"{row.label}: {miss}" for row in rows for miss in row.misses]


def regressions(compared: Comparison | None, percent: float | None) -> list[str]:
    """List the engines that are slower than in an earlier run by more than `percent`."""
    if compared is None or percent is None:
        return []
    return [f"{row.label}: {slower}" for row in compared.rows if (slower := row.speed_up.regression(percent))]


def raise_failure(measured: Bench, *, at: str = "", allow_invalid: bool = False) -> None:
    """Raise what went wrong in a bench, where it is more than a limit.

    Args:
        measured: What was measured.
        at: Prefix of the message that names the device.
        allow_invalid: Whether invalid latencies are accepted.

    Raises:
        StageError: An engine died.
        DeviceError: The device was lost, or no engine can run there.
        MeasurementError: A measurement is not valid.
    """
    if measured.failed:
        raise StageError(f"{at}{measured.failed[0].label}: {measured.failed[0].why}")
    if measured.stopped:
        raise DeviceError(
            f"{measured.stopped}; the rounds before it are kept",
            hint="run the same command again, without --fresh, to resume",
        )
    if not measured.measurements:
        raise _steps.not_run_error(f"{at}{measured.not_run[0].label}", measured.not_run[0].why)
    if measured.invalid and not allow_invalid:
        raise MeasurementError(
            f"{at}{measured.invalid[0]}",
            hint=f"{steadied(measured.measurements)} measure again, or accept the latencies as they are with "
            "--allow-invalid",
        )


def steadied(measured: Iterable[Measurement]) -> str:
    """Say what comes before measurements that were not valid are repeated."""
    advice = (one.conditions.advice for one in measured if one.conditions)
    commands = "; ".join(dict.fromkeys(command for known in advice for command in known))
    return f"an administrator may run: {commands}; then" if commands else "remove the cause and"
