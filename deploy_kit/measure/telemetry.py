"""What a race tells beside its samples: under what conditions they were taken, what a run cost, how far the roof is."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from deploy_kit.base.errors import DeviceError, EngineCrashError
from deploy_kit.devices.links import Worker
from deploy_kit.measure import energy, hardware_peaks, monitor, roofline
from deploy_kit.measure.hardware_peaks import MeasuredPeak
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import EMULATED, Environment, Measurement
from deploy_kit.records.readings import Energy, Processor, Roof
from deploy_kit.store import Store

_ENERGY_S = energy.MIN_S + 0.5


class Telemetry:
    """The gauges of the machine that races, and what they say of each engine."""

    def __init__(self, worker: Worker, *, machine: Environment, store: Store, with_energy: bool) -> None:
        """Start the gauges before any engine is loaded; for energy, read the idle machine first.

        An emulated machine has no roof and no energy of its own, and its times are none: nothing of it is judged.

        Args:
            worker: Of the machine, used for nothing else.
            machine: What it is.
            store: Has the graphs that the engines were built from.
            with_energy: Whether each engine is run for its energy as well.
        """
        self._monitor = monitor.start_monitor(worker)
        self._store = store
        self._peak = None if machine.emulated else self._monitor.roof()
        self._peak_is_whole = False
        self._energies: dict[str, Energy] = {}
        emulated = f"not measured: {EMULATED}" if machine.emulated else ""
        self._why_no_energy = emulated or energy.why_no_energy(self._monitor.watched)
        if not with_energy and not self._why_no_energy:
            self._why_no_energy = f"not measured: not asked for (--energy, {energy.MIN_S:g} s an engine)"
        if not self._why_no_energy:
            self._monitor.rest(_ENERGY_S)

    @property
    def measures_energy(self) -> bool:
        """Whether engines are to be run for their energy."""
        return not self._why_no_energy

    def adopt(self, worker: Worker) -> None:
        """Count the load of this worker as our own."""
        self._monitor.adopt(worker)

    def turn(self, key: str) -> AbstractContextManager[None]:
        """Watch a turn of the engine called `key`."""
        return self._monitor.turn(key)

    def run_for_energy(self, key: str, *, batch: int, run: Callable[[float], int]) -> None:
        """Run an engine for long enough and keep what it cost; ``run(seconds)`` gives the number of inferences."""
        with self._monitor.reading() as snapshots:
            runs = run(_ENERGY_S)
        self._energies[key] = self._monitor.energy_of(snapshots, runs=runs, batch=batch)

    def told(self, measured: Measurement, engine: Artifact, key: str) -> Measurement:
        """Add to a measurement what the gauges say of it; what makes it invalid comes behind what already did."""
        processor = roofline.processor_of(engine.engine or "", measured.settings)
        reasons, conditions = ((), None) if measured.emulated else self._monitor.judged(key, processor)
        return replace(
            measured,
            invalid=(*measured.invalid, *reasons),
            conditions=conditions,
            energy=self._energies.get(key, Energy(why=self._why_no_energy)),
            roof=self._roof(measured, engine, processor),
        )

    def _roof(self, measured: Measurement, engine: Artifact, processor: Processor) -> Roof | None:
        path = roofline.graph_of(engine, self._store)
        peak = None if self._peak is None else self._peak_of(measured.environment, engine, processor, self._peak)
        if path is None or peak is None:
            return None
        return roofline.estimate_roof(roofline.work_of(path, measured.batch), peak, engine.precision, processor)

    def _peak_of(
        self, here: Environment, engine: Artifact, processor: Processor, first: MeasuredPeak
    ) -> hardware_peaks.Peak | None:
        if processor == "gpu":
            return hardware_peaks.gpu_peak(self._monitor.watched.board, engine.precision)
        return hardware_peaks.cpu_peak(here, engine.precision, self._whole_peak(first))

    def _whole_peak(self, first: MeasuredPeak) -> MeasuredPeak:
        """Give the better of two attempts, before and after the race: what else runs can only take away."""
        if self._peak_is_whole:
            return first
        self._peak_is_whole, self._peak = True, first
        with contextlib.suppress(DeviceError, EngineCrashError):  # a device that was lost has its first attempt
            again = self._monitor.roof()
            self._peak = MeasuredPeak(
                flop_s=max(first.flop_s, again.flop_s),
                bandwidth_b_s=max(first.bandwidth_b_s, again.bandwidth_b_s),
            )
        return self._peak
