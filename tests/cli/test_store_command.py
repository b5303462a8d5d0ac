"""``store``: what is kept, and what may go."""

import json
from pathlib import Path

import pytest
from command_line import deploykit

from deploy_kit import store as store_module
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.records.artifacts import LogitsPart
from deploy_kit.store import Key, Store

DAY_S = 86400.0


def keep(store: Store, name: str) -> None:
    def make(folder: Path, home: str) -> LogitsPart:
        (folder / "logits.npy").write_bytes(b"12345")
        return LogitsPart(path=f"{home}/logits.npy", sha256=sha256_of(folder / "logits.npy"), n=1)

    store.produce(LogitsPart, Key(stage="logits", name=name, inputs=(name,), options=None, versions=()), make)


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with one result that was used today and one that was used 40 days ago."""
    store = Store(tmp_path / "store", {"source": {"checkpoint": "best.pth"}})
    now = store_module.time.time()
    monkeypatch.setattr(store_module.time, "time", lambda: now - 40 * DAY_S)
    keep(store, "old")
    monkeypatch.setattr(store_module.time, "time", lambda: now)
    keep(store, "new")
    return store.root


def test_each_result_is_listed_with_its_size_and_checkpoint(filled: Path) -> None:
    said = deploykit("store", "list", "--store", filled)

    assert said.code == 0, said.err
    assert said.out.count("best.pth") == 2
    assert "2 results, " in said.out
    found = json.loads(deploykit("store", "list", "--store", filled, "--json").out)
    assert [result["folder"].partition("-")[0] for result in found] == ["logits/new", "logits/old"]


def test_what_was_not_used_for_a_while_goes_and_the_rest_stays(filled: Path) -> None:
    said = deploykit("store", "prune", "--unused-for", "30d", "--store", filled)

    assert said.code == 0, said.err
    assert "logits/old" in said.out and "logits/new" not in said.out
    assert [path.name.partition("-")[0] for path in (filled / "logits").iterdir()] == ["new"]


def test_a_dry_run_removes_nothing(filled: Path) -> None:
    said = deploykit("store", "prune", "--unused-for", "0d", "--dry-run", "--store", filled)

    assert "2 results" in said.out and "would be removed" in said.out
    assert len(list((filled / "logits").iterdir())) == 2


@pytest.mark.parametrize("text", ["30", "d", "-1d", "a month"])
def test_days_have_their_unit(filled: Path, text: str) -> None:
    said = deploykit("store", "prune", "--unused-for", text, "--store", filled)

    assert (said.code, said.fix) == (2, "  fix: e.g. --unused-for 30d")


def test_a_store_that_is_not_there_is_empty_and_stays_away(tmp_path: Path) -> None:
    said = deploykit("store", "list", "--store", tmp_path / "none")

    assert (said.code, "0 results" in said.out) == (0, True)
    assert list(tmp_path.iterdir()) == []
