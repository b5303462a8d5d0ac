"""Telemetry of a race: the conditions under which samples were taken, the energy of a run, and the roofline."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace

from deploy_kit.base.errors import DeviceError, EngineCrashError
from deploy_kit.devices.links import Worker
from deploy_kit.measure import energy, hardware_peaks, monitor, roofline
from deploy_kit.measure.hardware_peaks import MeasuredPeak
from deploy_kit.measure.source_graph import source_graph
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.measurements import EMULATED, Environment, Measurement
from deploy_kit.records.readings import Energy, Processor, Roof
from deploy_kit.store import Store

_ENERGY_S = energy.MIN_S + 0.5  # readings come every 0.25 s, so the first and the last are MIN_S apart at least


class Telemetry:
    """Gauges of the machine that runs a race, and what they read for each engine."""

    def __init__(self, worker: Worker, *, machine: Environment, store: Store, with_energy: bool) -> None:
        """Start the gauges before any engine is loaded; for energy, read the idle machine first.

        Nothing of an emulated machine is judged: its times are no measurement, and it has neither a roofline nor
        energy of its own.

        Args:
            worker: Worker on the machine that is used for nothing else.
            machine: Description of the machine.
            store: Store that holds the graphs that the engines were built from.
            with_energy: Whether the energy of each engine is measured.
        """
        self._monitor = monitor.start_monitor(worker)
        self._store = store
        self._peak = None if machine.emulated else self._monitor.measure_peak()
        self._peak_is_whole = False
        self._energies: dict[str, Energy] = {}
        emulated = f"not measured: {EMULATED}" if machine.emulated else ""
        self._why_no_energy = emulated or energy.why_no_energy(self._monitor.watched)
        if not with_energy and not self._why_no_energy:
            self._why_no_energy = f"not measured: not asked for (--energy, {energy.MIN_S:g} s an engine)"
        if not self._why_no_energy:
            self._monitor.record_idle(_ENERGY_S)

    @property
    def measures_energy(self) -> bool:
        """Whether the energy of engines is measured."""
        return not self._why_no_energy

    def count_as_own(self, worker: Worker) -> None:
        """Count the load of this worker as deploykit's own from now on."""
        self._monitor.count_as_own(worker)

    def turn(self, key: str) -> AbstractContextManager[None]:
        """Return a context that reads the gauges around and within a turn of the engine called `key`."""
        return self._monitor.turn(key)

    def run_for_energy(self, key: str, *, batch: int, run: Callable[[float], int]) -> None:
        """Run an engine for long enough to measure its energy, and keep the result.

        Args:
            key: Name of the engine in the race.
            batch: Images per inference.
            run: Runs the engine for a number of seconds and returns the number of inferences.
        """
        with self._monitor.recording() as snapshots:
            runs = run(_ENERGY_S)
        self._energies[key] = self._monitor.energy_of(snapshots, runs=runs, batch=batch)

    def annotate(self, measured: Measurement, engine: Artifact, key: str) -> Measurement:
        """Add conditions, energy and roofline to a measurement, and the reasons that make it invalid.

        Args:
            measured: Measurement of the engine; its own reasons for invalidity stay first.
            engine: The engine.
            key: Name of the engine in the race.
        """
        processor = roofline.processor_of(measured.settings)
        reasons, conditions = ((), None) if measured.emulated else self._monitor.judge(key, processor)
        return replace(
            measured,
            invalid=(*measured.invalid, *reasons),
            conditions=conditions,
            energy=self._energies.get(key, Energy(why=self._why_no_energy)),
            roof=self._roof(measured, engine, processor),
        )

    def _roof(self, measured: Measurement, engine: Artifact, processor: Processor) -> Roof | None:
        graph = source_graph(engine, self._store)
        peak = None if self._peak is None else self._peak_of(measured.environment, engine, processor, self._peak)
        if graph is None or peak is None:
            return None
        work = roofline.work_of(self._store.root / graph.path, measured.batch)
        return roofline.estimate_roof(work, peak, engine.precision, processor)

    def _peak_of(
        self, here: Environment, engine: Artifact, processor: Processor, first: MeasuredPeak
    ) -> hardware_peaks.Peak | None:
        if processor == "gpu":
            return hardware_peaks.gpu_peak(self._monitor.watched.board, engine.precision)
        return hardware_peaks.cpu_peak(here, engine.precision, self._whole_peak(first))

    def _whole_peak(self, first: MeasuredPeak) -> MeasuredPeak:
        """Return the better of two attempts, before and after the race: other load can only lower a rate."""
        if self._peak_is_whole:
            return first
        self._peak_is_whole, self._peak = True, first
        with contextlib.suppress(DeviceError, EngineCrashError):  # where the device was lost, the first attempt stands
            again = self._monitor.measure_peak()
            self._peak = MeasuredPeak(
                flop_s=max(first.flop_s, again.flop_s),
                bandwidth_b_s=max(first.bandwidth_b_s, again.bandwidth_b_s),
            )
        return self._peak
