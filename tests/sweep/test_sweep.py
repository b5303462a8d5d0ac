"""A whole sweep over tiny networks, its workers in this process."""

import contextlib
import dataclasses
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_line import deploykit
from small_sweeps import small_sweep
from stand_ins import PretendLink

from deploy_kit import checkpoint, pipeline
from deploy_kit import sweep as sweeps
from deploy_kit.base.errors import DeviceError, LinkLostError, StoreError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.cli import sweep as command
from deploy_kit.devices import links
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe.grid import load_grid
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Device
from deploy_kit.records.sweeps import SweepResult
from deploy_kit.stages import build
from deploy_kit.store import Store
from deploy_kit.sweep import page

pytestmark = pytest.mark.slow

BOARD = "ssh://board.invalid"


class Reached:
    """Connects every device to workers in this process, and notes which were asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked, self.refuses = folder, list[str](), set[str]()

    @contextlib.contextmanager
    def __call__(self, device: Device, *, bare: bool = False) -> Iterator[PretendLink]:
        self.asked.append(device.name)
        if device.name in self.refuses:
            raise DeviceError(f"device '{device.name}': no answer")
        link = PretendLink(self.folder, WorkerProgram().operations)
        link.device = device
        yield link


@pytest.fixture
def reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reached:
    found = Reached(tmp_path)
    monkeypatch.setattr(links, "connect_device", found)
    return found


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, SweepResult]]:
    """A sweep of 2 × 2 × 2 cells, done once."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "connect_device", Reached(folder))
        yield folder, sweeps.run(load_grid(str(small_sweep(folder))), Store(folder / "store"))


def again(folder: Path, file: Path, **options: object) -> SweepResult:
    return sweeps.run(load_grid(str(file)), Store(folder / "store"), **options)  # type: ignore[arg-type]


def states(result: SweepResult) -> list[str]:
    return [cell.state for cell in result.cells]


def made(result: SweepResult, stage: str) -> list[str]:
    return [one.name for cell in result.cells for one in cell.times if one.stage == stage and not one.reused]


def test_every_cell_is_built_checked_and_measured(swept: tuple[Path, SweepResult]) -> None:
    _, result = swept

    assert states(result) == ["done"] * 8
    assert {cell.row.verdict.partition(" ")[0] for cell in result.cells if cell.row} == {"accepted"}
    assert all(page.choice.measured_of(cell) is not None for cell in result.cells)


def test_what_cells_share_is_made_once(swept: tuple[Path, SweepResult]) -> None:
    _, result = swept

    assert [len(made(result, stage)) for stage in ("simplify", "quantize", "build", "check")] == [2, 2, 8, 8]


def test_a_second_run_makes_nothing(swept: tuple[Path, SweepResult], reached: Reached) -> None:
    folder, first = swept

    second = again(folder, folder / "sweep.yaml", earlier=first)

    assert not any(made(second, stage) for stage in ("export", "simplify", "quantize", "build", "check", "bench"))
    assert [cell.row for cell in second.cells] == [cell.row for cell in first.cells]
    assert [cell.made_s for cell in second.cells] == [cell.made_s for cell in first.cells]


def test_the_recommendation_names_a_cell_and_has_a_reason_for_every_other(swept: tuple[Path, SweepResult]) -> None:
    _, result = swept
    (choice,) = result.choices
    subjects = {cell.name.subject for cell in result.cells}

    assert choice.winner in subjects
    assert {loser.label for loser in choice.losers} == subjects - {choice.winner}
    assert command.exit_code(result, allow_invalid=False) == 0


def test_the_record_survives_its_json(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    _, result = swept

    page.write(result, tmp_path)

    assert page.load_result(tmp_path / page.JSON) == result
    assert codec.to_json(result)["form"] == 1


def test_every_cell_is_on_the_page_and_in_markdown(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    _, result = swept
    strange = dataclasses.replace(result, sweep="<script>alert(1)</script>")

    page.write(strange, tmp_path)
    html, text = ((tmp_path / name).read_text() for name in (page.HTML, page.MARKDOWN))

    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert all(cell.name.title in html for cell in result.cells)
    assert sum(line.startswith(("| net0 |", "| net1 |")) for line in text.splitlines()) == 8
    assert html.count('<path class="mark') + html.count('class="mark') >= 16  # accuracy and size


def test_what_engines_compute_in_is_said_once_beside_the_table_and_on_the_page(
    swept: tuple[Path, SweepResult], reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = swept
    monkeypatch.setattr(build, "widened", lambda engine: f"{engine.precision} is computed in fp64")
    (tmp_path / "page.md").write_text("<!-- cells -->\n<!-- /cells -->\n")

    result = again(folder, folder / "sweep.yaml")
    page.write(result, tmp_path)
    page.write_table(result, tmp_path / "page.md")

    for name in (page.MARKDOWN, "page.md"):
        text = (tmp_path / name).read_text()
        assert text.count("4 cells: fp32 is computed in fp64") == text.count("4 cells: int8 is computed in fp64") == 1


def test_a_checkpoint_that_cannot_be_read_takes_no_other_cell_with_it(
    swept: tuple[Path, SweepResult], reached: Reached, tmp_path: Path
) -> None:
    folder, _ = swept
    (tmp_path / "bad.safetensors").write_bytes(b"no checkpoint")
    table = yaml.safe_load((folder / "sweep.yaml").read_text())
    table["checkpoints"].insert(0, str(tmp_path / "bad.safetensors"))
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(table))

    result = again(folder, tmp_path / "sweep.yaml")

    assert states(result) == ["failed"] * 4 + ["done"] * 8
    assert "bad.safetensors" in result.cells[0].why
    assert command.exit_code(result, allow_invalid=False) == 5


def test_devices_work_side_by_side_on_one_store(
    swept: tuple[Path, SweepResult], reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = swept
    threads, run = set[str](), build.run
    monkeypatch.setattr(build, "run", lambda *a: threads.add(threading.current_thread().name) or run(*a))
    file = small_sweep(tmp_path, devices=["local", BOARD], variants=["fp32"])

    result = again(folder, file)

    assert states(result) == ["done"] * 8
    assert len(threads) == 2
    assert {choice.device for choice in result.choices} == {"local", BOARD}
    assert [name for name, _ in result.environments] == ["local", BOARD]


def test_a_device_that_does_not_answer_is_asked_once_and_fails_its_cells_alone(
    reached: Reached, tmp_path: Path
) -> None:
    reached.refuses.add("board.invalid")
    file = small_sweep(tmp_path, 1, devices=["local", BOARD], variants=["fp32"])

    result = again(tmp_path, file)

    assert [(cell.name.device, cell.state) for cell in result.cells] == [("local", "done"), (BOARD, "failed")] * 2
    assert reached.asked.count("board.invalid") == 1
    assert "no answer" in result.cells[1].why


def test_a_lost_link_fails_one_cell_and_is_opened_again(
    reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds, run = list[object](), build.run

    def lost_once(*arguments: object) -> object:
        builds.append(arguments)
        if len(builds) == 1:
            raise LinkLostError("the connection ended")
        return run(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(build, "run", lost_once)

    result = again(tmp_path, small_sweep(tmp_path, 1, variants=["fp32"]))

    assert states(result) == ["failed", "done"]


def test_a_full_disk_ends_the_sweep_whichever_thread_meets_it(
    reached: Reached, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> object:
        raise StoreError("no space left on the disk")

    monkeypatch.setattr(pipeline, "prepared", full)

    with pytest.raises(StoreError, match="no space left"):
        again(tmp_path, small_sweep(tmp_path, 1, devices=["local", BOARD], variants=["fp32"]))


def test_cells_for_which_there_is_no_time_are_listed_as_not_run(reached: Reached, tmp_path: Path) -> None:
    result = again(tmp_path, small_sweep(tmp_path, 1), minutes=0.0)

    assert states(result) == ["not run"] * 4
    assert {cell.why for cell in result.cells} == {sweeps.TIME_UP}
    assert command.exit_code(result, allow_invalid=True) == 6


def test_an_engine_without_int8_has_its_float_cells_alone(reached: Reached, tmp_path: Path) -> None:
    result = again(tmp_path, small_sweep(tmp_path, 1, engines=["ncnn"]), minutes=0.0)

    assert states(result) == ["not run", "left out"]
    assert result.cells[1].why == "engine 'ncnn' takes no INT8 graph"


def test_progress_counts_the_cells_of_the_whole(swept: tuple[Path, SweepResult], reached: Reached) -> None:
    folder, first = swept
    heard = list[ProgressEvent]()

    again(folder, folder / "sweep.yaml", on_progress=heard.append)

    counts = [(event.done, event.total) for event in heard if event.stage == "sweep"]
    assert counts == [(n, len(first.cells)) for n in range(len(first.cells))]


def test_nothing_qualifies_within_a_budget_that_none_keeps(
    swept: tuple[Path, SweepResult], reached: Reached, tmp_path: Path
) -> None:
    folder, _ = swept
    table = yaml.safe_load((folder / "sweep.yaml").read_text())
    table["budgets"] = [{"max_size_mb": 0.001}, {"prefer": "smallest"}, {"prefer": "accurate", "min_top1": 0.01}]
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(table))

    result = again(folder, tmp_path / "sweep.yaml")
    none, smallest, accurate = result.choices

    assert none.winner == "" and all("at most 0.001 MB" in loser.why for loser in none.losers)
    sizes = {cell.name.subject: cell.row.artifact.size_bytes for cell in result.cells if cell.row and cell.row.artifact}
    assert sizes[smallest.winner] == min(sizes.values())
    tops = {cell.name.subject: page.choice.accuracy_of(cell, "top-1") for cell in result.cells}
    assert tops[accurate.winner] == max(value for value in tops.values() if value is not None)
    assert command.exit_code(result, allow_invalid=False) == 1


def test_the_plan_computes_nothing_and_says_where_its_numbers_are_from(tmp_path: Path) -> None:
    file = small_sweep(tmp_path)

    said = deploykit("sweep", file, "--dry-run", "--json", "--store", tmp_path / "store", "--out", tmp_path)

    plan = json.loads(said.out)
    assert said.code == 0
    assert len(plan["cells"]) == 8 and {cell["source"] for cell in plan["cells"]} == {"guessed from the file's size"}
    assert not (tmp_path / "store").exists()


def test_the_plan_takes_the_times_of_an_earlier_run(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    folder, result = swept
    page.write(result, tmp_path / result.sweep)

    said = deploykit("sweep", folder / "sweep.yaml", "--dry-run", "--json", "--out", tmp_path)

    assert [cell["seconds"] for cell in json.loads(said.out)["cells"]] == [cell.made_s for cell in result.cells]


def test_the_command_writes_and_prints_the_result(
    swept: tuple[Path, SweepResult], reached: Reached, tmp_path: Path
) -> None:
    folder, _ = swept

    said = deploykit("sweep", folder / "sweep.yaml", "--store", folder / "store", "--out", tmp_path, "-q")

    assert said.code == 0
    assert "local, batch 1, the fastest: net" in said.out
    assert sorted(path.name for path in (tmp_path / "small").iterdir()) == [page.HTML, page.JSON, page.MARKDOWN]


def test_another_sweeps_result_is_not_replaced(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    folder, result = swept
    page.write(dataclasses.replace(result, sweep="other"), tmp_path / "small")

    said = deploykit("sweep", folder / "sweep.yaml", "--out", tmp_path)

    assert said.code == 2
    assert said.error.endswith("is the result of another sweep: other")
    assert said.fix == "  fix: choose another --out"


def test_the_table_goes_between_the_marks_of_a_page(swept: tuple[Path, SweepResult], tmp_path: Path) -> None:
    _, result = swept
    (tmp_path / "page.md").write_text("# Before\n\n<!-- cells -->\nold\n<!-- /cells -->\nafter\n")

    for _ in range(2):
        page.write_table(result, tmp_path / "page.md")

    text = (tmp_path / "page.md").read_text()
    assert text.startswith("# Before\n\n<!-- cells -->\n8 cells: 8 done.") and text.endswith(
        "\n<!-- /cells -->\nafter\n"
    )
    assert "old" not in text
    (head,) = [line for line in text.splitlines() if line.startswith("| checkpoint |")]
    rows = [line for line in text.splitlines() if line.startswith("| net")]
    assert len(rows) == 8 and all(row.count("|") == head.count("|") for row in rows)


def test_the_median_of_six_rounds_has_its_interval(swept: tuple[Path, SweepResult]) -> None:
    _, result = swept
    cell, at = result.cells[0], page.COLUMNS.index("p50")
    measured = page.choice.measured_of(cell)
    assert measured is not None and cell.row is not None
    rounds = dataclasses.replace(
        measured, samples_ms=tuple(float(k) for k in range(1, 25)), rounds=tuple(range(0, 24, 4))
    )
    timed = dataclasses.replace(cell, row=dataclasses.replace(cell.row, measurement=rounds))

    assert page.row(timed)[at].endswith(" ms [2.500, 22.500]")
    assert "[" not in page.row(cell)[at]  # of three rounds


@pytest.mark.parametrize("text", ["", "<!-- cells -->", "<!-- /cells -->\n<!-- cells -->"])
def test_a_file_without_a_place_for_the_table_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(text)

    said = deploykit("sweep", small_sweep(tmp_path), "--out", tmp_path / "out", "--table", tmp_path / "page.md", "-q")

    assert said.code == 2
    assert "expected a Markdown file with a line '<!-- cells -->'" in said.error
    assert (tmp_path / "page.md").read_text() == text


def test_random_weights_are_read_though_their_statistics_are_no_evidence(tmp_path: Path) -> None:
    made = sweeps._random("densenet_bc100_k24", Store(tmp_path))

    found = checkpoint.read_checkpoint(Path(made.checkpoint), checkpoint.stated_facts(made))

    assert found.spec.title == "DenseNet-BC-100 (k = 24)"
