"""``deploykit doctor``: the tables it prints, and the plan it holds against the machine."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy_kit import cli
from deploy_kit.recipe.compatibility import page

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def doctor(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["deploykit", "doctor", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_tables_are_printed_with_their_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor(monkeypatch, "--versions")

    assert (code, capsys.readouterr().out) == (0, page.markdown() + "\n")


def test_a_plan_without_a_passport_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.plan"
    path.write_bytes(b"a plan")

    code = doctor(monkeypatch, "--plan", path)

    assert code == 2
    assert f"{path}: no passport beside it, so what built it is not known" in capsys.readouterr().err


@pytest.mark.slow
def test_an_engine_of_the_store_is_looked_at(
    line: "Line", monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = doctor(monkeypatch, "--plan", line.store.path(line.built("fp32", "onnxruntime")))

    assert (code, "DEV012" in capsys.readouterr().out) == (0, False)
