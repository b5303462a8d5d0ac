"""A sweep: the cells of a grid, each taken down the straight line; what they share is made once, by the store's keys.

Devices work side by side, each on one cell at a time. A cell that fails is a row with its reason.
"""

import contextlib
import dataclasses
import datetime
import functools
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from deploy_kit import pipeline
from deploy_kit import recipe as recipes
from deploy_kit.analysis import doctor
from deploy_kit.base.errors import DeployKitError, DeviceError, LinkLostError, StoreError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent, no_progress
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.checkpoint.network import random_densenet
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.links import LOCAL, Connection
from deploy_kit.images import ImageSource
from deploy_kit.machine.environment import library_version, versions_of
from deploy_kit.parallel import ONE_PROCESS, Workers
from deploy_kit.pipeline import Prepared, Run
from deploy_kit.recipe import Recipe
from deploy_kit.recipe.grid import SweepCheckpoint, SweepTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Device
from deploy_kit.records.measurements import Environment, NotRun
from deploy_kit.records.results import EngineRow
from deploy_kit.records.sweeps import CellName, CellState, RandomCheckpoint, SweepCell, SweepResult
from deploy_kit.store import Key, Store
from deploy_kit.sweep import choice
from deploy_kit.sweep.cells import Cell, base_recipe, recipe_of, unroll, verify_cells, why_impossible
from deploy_kit.sweep.machines import Machine, machine_key

TIME_UP = "the time of the sweep was up"
# Tables that differ among cells which share their export, their logits and their simplified graph.
_OWN = {"name", "build", "bench", "recommend"}


def run(
    table: SweepTable,
    store: Store,
    on_progress: ProgressCallback = no_progress,
    *,
    minutes: float | None = None,
    fresh: bool = False,
    earlier: SweepResult | None = None,
    workers: Workers = ONE_PROCESS,
) -> SweepResult:
    """Run every cell of a sweep, or those for which there is time.

    Args:
        table: The sweep.
        store: Keeps every result; what it has is not made again.
        on_progress: Called with progress events, by one thread at a time.
        minutes: Limit of the time; a cell that would probably not end within it is not begun. None sets no limit.
        fresh: Measure latencies again, even if the store has them.
        earlier: Result of an earlier run: it knows how long cells took that the store has.
        workers: Where what needs no particular machine is computed.

    Returns:
        The result: each cell with its numbers, or with the reason why it has none.

    Raises:
        RequestError: The grid names what does not exist, or an option does not fit.
        DeviceError: No device has a name of the grid.
        StoreError: The store cannot be written.
    """
    base = base_recipe(table)
    devices = {name: links.find_device(name) for name in table.devices}
    cells = unroll(table, {name: _random(name, store) for name in table.architectures})
    verify_cells(cells, base)
    with links.connect_device(LOCAL) as here:
        sweep = _Sweep(
            base=base,
            cells=cells,
            host=Context(store=store, connection=here, on_progress=on_progress, workers=workers),
            minutes=minutes,
            fresh=fresh,
            earlier={} if earlier is None else {cell.name: cell for cell in earlier.cells},
        )
        sweep.work(devices)
    found, accuracy = choice.with_fronts([sweep.done[cell.name] for cell in cells])
    return SweepResult(
        sweep=table.name,
        cells=found,
        choices=choice.choose(found, table.budgets, max(base.bench.percentiles)),
        environments=tuple((name, there) for name in devices if (there := sweep.environments.get(name))),
        when=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        version=library_version("deploykit"),
        seconds=round(time.monotonic() - sweep.begun, 1),
        minutes=minutes,
        accuracy=accuracy,
        sweep_yaml=recipes.dump_recipe(table),
    )


def _random(name: str, store: Store) -> SweepCheckpoint:
    """Return the checkpoint of an architecture with random weights, which the store keeps."""
    random_densenet.spec(name)  # an unknown name is refused before a folder is made

    def make(folder: Path, home: str) -> RandomCheckpoint:
        file = folder / f"{name}.safetensors"
        random_densenet.write(name, file)
        return RandomCheckpoint(path=f"{home}/{file.name}", sha256=sha256_of(file))

    versions = (("stage", random_densenet.VERSION), *versions_of("torch"))
    made, _ = store.produce(
        RandomCheckpoint, Key(stage="random", name=name, inputs=(), options=[name], versions=versions), make
    )
    # Statistics of random weights are no evidence of an activation.
    return SweepCheckpoint(name=name, checkpoint=str(store.root / made.path), activation="relu")


@dataclass(kw_only=True)
class _Sweep:
    """A sweep at work: what its threads share."""

    base: Recipe
    cells: tuple[Cell, ...]
    host: Context
    minutes: float | None
    fresh: bool
    earlier: Mapping[CellName, SweepCell]
    begun: float = field(default_factory=time.monotonic)
    done: dict[CellName, SweepCell] = field(default_factory=dict)
    environments: dict[str, Environment] = field(default_factory=dict)
    _prepared: dict[str, tuple[Prepared, tuple[str, ...]] | DeployKitError] = field(default_factory=dict)
    _sources: dict[ImageSource, ImageSource] = field(default_factory=dict)
    _machines: defaultdict[str, Machine] = field(default_factory=lambda: defaultdict(Machine))
    _preparing: threading.Lock = field(default_factory=threading.Lock)
    _telling: threading.Lock = field(default_factory=threading.Lock)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _errors: list[BaseException] = field(default_factory=list)

    def work(self, devices: Mapping[str, Device]) -> None:
        """Run the cells of every device, devices side by side; raise what no cell can be blamed for."""
        queues = [(device, mine) for name, device in devices.items() if (mine := self._of(name))]
        if len(queues) == 1:
            self._walk(*queues[0])
            return
        # Daemons: what interrupts this thread must not wait for a build on a device; the store loses nothing by it.
        threads = [threading.Thread(target=self._walk_guarded, args=queue, daemon=True) for queue in queues]
        self._machines.update({machine_key(device): Machine() for device, _ in queues})
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            self._stopped.set()
        if self._errors:
            raise self._errors[0]

    def _of(self, device: str) -> list[Cell]:
        return [cell for cell in self.cells if cell.name.device == device]

    def _walk_guarded(self, device: Device, cells: Sequence[Cell]) -> None:
        try:
            self._walk(device, cells)
        except BaseException as error:  # noqa: BLE001  # raised again by the thread that waits
            self._errors.append(error)
            self._stopped.set()

    def _walk(self, device: Device, cells: Sequence[Cell]) -> None:
        """Run the cells of one device, one after the other."""
        with contextlib.ExitStack() as stack:
            line = _Line(device=device, stack=stack)
            for cell in cells:
                if self._stopped.is_set():
                    return
                self.done[cell.name] = self._ended(cell, line)

    def _ended(self, cell: Cell, line: "_Line") -> SweepCell:
        """Run one cell and return how it ended."""
        ended = functools.partial(SweepCell, name=cell.name, random_weights=cell.random_weights)
        if why := why_impossible(cell, self.base):
            return ended(state="left out", why=why)
        if not self._has_time(cell):
            return ended(state="not run", why=TIME_UP)
        event = ProgressEvent(stage="sweep", text=cell.name.title, done=len(self.done), total=len(self.cells))
        self._tell(event)
        run: Run | None = None
        row: EngineRow | None = None
        failed = ""
        try:
            run, fitted = self._opened(cell, line)
            ready, remarks = self._ready(run)
            run.remarks[:] = (*fitted, *remarks)
            graphs, absent = pipeline.quantized_graphs(run, ready.graph)
            (entry,) = run.recipe.build.engines
            row = pipeline.built_and_checked(run, entry, entry.variants[0], graphs, absent, ready.logits)
            (row,) = pipeline.measured_rows(run, [row], fresh=self.fresh)
            run.remarks += pipeline.engine_notes(row)
        except StoreError:
            raise  # no other cell could be kept
        except DeployKitError as error:
            failed = error.reason
            if isinstance(error, LinkLostError):
                line.close()
        if row is not None:
            failed = failed or row.failed
        state, why = _state(row, failed)
        times = tuple(run.times) if run else ()
        made_s = round(sum(one.seconds for one in times if not one.reused), 3)
        known = self.earlier.get(cell.name)
        return ended(
            state=state,
            why=why,
            row=row if row is None or row.failed == failed else dataclasses.replace(row, failed=failed),
            times=times,
            made_s=max(made_s, known.made_s) if known and not self.fresh else made_s,
            remarks=tuple(dict.fromkeys(run.remarks)) if run else (),
        )

    def _has_time(self, cell: Cell) -> bool:
        """Return whether a cell will probably end in time: it is in the store, or takes as long as the others did."""
        if self.minutes is None:
            return True
        left_s = self.begun + 60 * self.minutes - time.monotonic()
        known = self.earlier.get(cell.name)
        alike = [one.made_s for one in list(self.done.values()) if one.name.device == cell.name.device and one.made_s]
        there = known is not None and known.state == "done" and not self.fresh
        return left_s > (0 if there or not alike else statistics.median(alike))

    def _tell(self, event: ProgressEvent) -> None:
        with self._telling:
            self.host.on_progress(event)

    def _opened(self, cell: Cell, line: "_Line") -> tuple[Run, tuple[str, ...]]:
        """Return the run of a cell, once it is known to be possible on its device, and what was fitted to that."""
        there = line.connection()
        self.environments.setdefault(cell.name.device, there.environment)
        recipe, fitted = recipe_of(cell, self.base, self.environments[cell.name.device].isa)
        doctor.require(recipe, there)
        host = dataclasses.replace(
            self.host, store=self.host.store.under(recipe.model_dump(mode="json")), on_progress=self._tell
        )
        run = Run(
            recipe=recipe,
            host=host,
            target=dataclasses.replace(host, connection=there),
            turn=functools.partial(self._turn, self._machines[machine_key(line.device)]),
            sources=self._sources,
        )
        return run, fitted

    def _ready(self, run: Run) -> tuple[Prepared, tuple[str, ...]]:
        """Return what the cell shares with others: made by the first of them; where it failed, they all have."""
        shared = run.recipe.model_dump(mode="json", exclude=_OWN)
        shared["quantize"].pop("variants")
        key = codec.canonical_json(shared)
        with self._preparing:
            if key not in self._prepared:
                try:
                    self._prepared[key] = (pipeline.prepared(run), tuple(run.remarks))
                except StoreError:
                    raise
                except DeployKitError as error:
                    self._prepared[key] = error
        found = self._prepared[key]
        if isinstance(found, DeployKitError):
            raise found
        return found

    @contextlib.contextmanager
    def _turn(self, there: Machine, stage: str) -> Iterator[None]:
        """Wait until a stage may work: what is timed has its machine alone, everything else may share it.

        A check reads its images on this machine. This machine's turn is always taken first, so that no two threads
        wait for each other.
        """
        here = self._machines[LOCAL.link]
        taken = list[AbstractContextManager[None]]()
        if stage == "bench":
            taken = [there.measuring()]
        else:
            taken += [here.computing()] if there is here or stage != "build" else []
            taken += [there.computing()] if there is not here and stage in ("build", "check") else []
        with contextlib.ExitStack() as stack:
            for turn in taken:
                stack.enter_context(turn)
            yield


@dataclass(kw_only=True)
class _Line:
    """The connection to one device: opened when it is needed, and again after it was lost; once refused, given up."""

    device: Device
    stack: contextlib.ExitStack
    _open: Connection | None = None
    _refused: DeviceError | None = None

    def connection(self) -> Connection:
        """Return the open connection.

        Raises:
            DeviceError: The device cannot be reached.
        """
        if self._refused is not None:
            raise self._refused
        if self._open is None:
            try:
                self._open = self.stack.enter_context(links.connect_device(self.device))
            except DeviceError as error:
                self._refused = error
                raise
        return self._open

    def close(self) -> None:
        """Give up a connection that was lost."""
        self._open = None
        with contextlib.suppress(DeviceError, OSError, EOFError):
            self.stack.close()


def _state(row: EngineRow | None, failed: str) -> tuple[CellState, str]:
    if failed or row is None:
        return "failed", failed
    if row.left_out or isinstance(row.parity, NotRun):
        return "left out", row.left_out or row.verdict
    return "done", ""
