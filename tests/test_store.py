"""Tests of store.py: results are kept whole or not at all; changed files and cut lines are noticed."""

import dataclasses
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from deploy_kit import store as store_module
from deploy_kit.base.errors import BuildError, InputError, RequestError, StoreError
from deploy_kit.base.whole_files import digest_of, parts_of, sha256_of, write_together, write_whole
from deploy_kit.records.artifacts import Artifact, Preprocess
from deploy_kit.records.verdict import Verdict
from deploy_kit.store import JournalEntry, Key, Store

KEY = Key(stage="quantize", name="int8", inputs=("ab",), options={"symmetric": True}, versions=(("stage", "1"),))
OTHER = dataclasses.replace(KEY, options={"symmetric": False})
PASSPORT = Artifact(
    kind="onnx", name="int8", path="", sha256="", size_bytes=7, precision="int8", inputs=(), outputs=(),
    stage="quantize", parent="ab",
    preprocess=Preprocess(height=1, width=1, color="gray", mean=(0.0,), std=(1.0,)),
)  # fmt: skip
OPENS = "from pathlib import Path; from deploy_kit.store import Store; Store(Path({!r}))"


@dataclass(frozen=True, kw_only=True)
class Note:
    """A result of these tests."""

    text: str


def makes(text):
    """Give a `make` that writes one file and notes `text`."""

    def make(folder, home):
        (folder / "model.onnx").write_text(text)
        return Note(text=text)

    return make


def breaks(error):
    """Give a `make` that writes half a file and raises `error`."""

    def make(folder, home):
        (folder / "model.onnx").write_text("half")
        raise error

    return make


def full(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(root):
    """Give every file under `root` with its content."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def home(store, key=KEY):
    """Give the folder that a result is kept in."""
    return store.root / key.stage / f"{key.name}-{key.digest[:12]}"


def artifact(store, text="weights"):
    """Keep one file and give its passport."""
    store.produce(Note, KEY, makes(text))
    path = home(store) / "model.onnx"
    return dataclasses.replace(PASSPORT, path=str(path.relative_to(store.root)), sha256=sha256_of(path))


# Keys


def test_the_digest_is_the_sha256_of_what_decides_as_json():
    text = '{"inputs":["ab"],"options":{"symmetric":true},"stage":"quantize","versions":[["stage","1"]]}'

    assert KEY.digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_name_does_not_decide():
    assert dataclasses.replace(KEY, name="other").digest == KEY.digest


@pytest.mark.parametrize(
    "change",
    [
        {"stage": "build"},
        {"inputs": ("cd",)},
        {"inputs": ("ab", "cd")},
        {"options": {"symmetric": False}},
        {"options": {}},
        {"versions": (("stage", "2"),)},
    ],
)
def test_all_else_decides(change):
    assert dataclasses.replace(KEY, **change).digest != KEY.digest


def test_the_order_of_options_does_not_decide():
    one, two = ({"a": 1, "b": 2}, {"b": 2, "a": 1})

    assert dataclasses.replace(KEY, options=one).digest == dataclasses.replace(KEY, options=two).digest


# Hashes


def test_sha256_is_that_of_the_standards_example(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")

    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_reads_a_file_of_several_pieces(tmp_path):
    content = bytes(range(256)) * 4096 * 2 + b"end"
    (tmp_path / "large").write_bytes(content)

    assert sha256_of(tmp_path / "large") == hashlib.sha256(content).hexdigest()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        sha256_of(tmp_path / "gone.onnx")

    error = caught.value
    assert (str(error), error.hint, error.exit_code) == (
        f"{tmp_path / 'gone.onnx'}: no such file", "check the path", 2,
    )  # fmt: skip


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError) as caught:
        sha256_of(tmp_path)

    assert str(caught.value) == f"{tmp_path}: cannot be read: Is a directory"


def test_an_artifact_of_one_file_is_hashed_as_that_file(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"abc")
    (tmp_path / "record.json").write_bytes(b"{}")

    assert digest_of(tmp_path / "model.onnx") == sha256_of(tmp_path / "model.onnx")


def test_an_artifact_of_two_files_is_hashed_by_names_and_contents(tmp_path):
    (tmp_path / "model.xml").write_bytes(b"graph")
    (tmp_path / "model.bin").write_bytes(b"weights")
    lines = f"model.bin {sha256_of(tmp_path / 'model.bin')}\nmodel.xml {sha256_of(tmp_path / 'model.xml')}\n"

    assert digest_of(tmp_path / "model.xml") == hashlib.sha256(lines.encode()).hexdigest()


def test_the_files_of_an_artifact_share_its_stem(tmp_path):
    for name in ("model.xml", "model.bin", "model.onnx.data", "models.xml", "record.json"):
        (tmp_path / name).write_bytes(b"")

    assert [part.name for part in parts_of(tmp_path / "model.xml")] == ["model.bin", "model.onnx.data", "model.xml"]


# Results


def test_a_result_is_made_once(store):
    store.produce(Note, KEY, makes("first"))

    found = store.produce(Note, KEY, makes("second"))

    assert found == (Note(text="first"), True)


def test_a_result_is_made_again_where_that_is_asked_for(store):
    store.produce(Note, KEY, makes("first"))

    assert store.produce(Note, KEY, makes("second"), again=True) == (Note(text="second"), False)


def test_a_result_made_again_takes_the_place_of_the_old_one(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, KEY, makes("second"), again=True)

    assert store.produce(Note, KEY, makes("third")) == (Note(text="second"), True)


def test_a_new_result_is_told_from_one_that_was_there(store):
    assert store.produce(Note, KEY, makes("first")) == (Note(text="first"), False)


def test_another_key_gives_another_result(store):
    store.produce(Note, KEY, makes("first"))

    assert store.produce(Note, OTHER, makes("second")) == (Note(text="second"), False)


def test_a_result_outlives_its_store(store):
    store.produce(Note, KEY, makes("first"))

    assert Store(store.root).produce(Note, KEY, makes("second")) == (Note(text="first"), True)


def test_files_lie_where_make_was_told_they_would(store):
    told = []

    def make(folder, home):
        told.append(home)
        return makes("weights")(folder, home)

    store.produce(Note, KEY, make)

    assert (store.root / told[0] / "model.onnx").read_text() == "weights"


def test_the_folder_is_named_by_stage_name_and_digest(store):
    store.produce(Note, KEY, makes("first"))

    assert files(store.root).keys() == {
        "journal.jsonl", f"quantize/int8-{KEY.digest[:12]}/model.onnx", f"quantize/int8-{KEY.digest[:12]}/record.json",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["", '{"text": "fir', "[]", '{"other": 1}', '{"text": 3}', "null"])
def test_a_record_that_cannot_be_read_is_made_again(store, text):
    store.produce(Note, KEY, makes("first"))
    (home(store) / "record.json").write_text(text)

    assert store.produce(Note, KEY, makes("second")) == (Note(text="second"), False)


def test_a_result_made_again_leaves_no_file_of_the_old_one(store):
    store.produce(Note, KEY, makes("first"))
    (home(store) / "record.json").unlink()
    (home(store) / "rejected.json").write_text("{}")

    store.produce(Note, KEY, makes("second"))

    assert not (home(store) / "rejected.json").exists()


# What goes wrong while a result is made

INTERRUPTS = [
    KeyboardInterrupt(),
    SystemExit(1),
    BuildError("the builder gave up"),
    ZeroDivisionError(),
    OSError(errno.ENOSPC, "No space left on device"),
]


@pytest.mark.parametrize("error", INTERRUPTS, ids=lambda error: type(error).__name__)
def test_an_interrupt_leaves_everything_as_it_was(store, error):
    store.produce(Note, OTHER, makes("earlier"))
    before = files(store.root)

    with pytest.raises((type(error), StoreError)):
        store.produce(Note, KEY, breaks(error))

    assert files(store.root) == before


@pytest.mark.parametrize("error", INTERRUPTS, ids=lambda error: type(error).__name__)
def test_an_interrupt_leaves_no_folder(store, error):
    with pytest.raises((type(error), StoreError)):
        store.produce(Note, KEY, breaks(error))

    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("error", INTERRUPTS[:4], ids=lambda error: type(error).__name__)
def test_an_interrupt_is_passed_on_as_it_is(store, error):
    with pytest.raises(type(error)) as caught:
        store.produce(Note, KEY, breaks(error))

    assert caught.value is error


@pytest.mark.parametrize("error", INTERRUPTS, ids=lambda error: type(error).__name__)
def test_an_interrupt_while_a_result_is_made_again_keeps_the_old_one(store, error):
    store.produce(Note, KEY, makes("first"))
    before = files(store.root)

    with pytest.raises((type(error), StoreError)):
        store.produce(Note, KEY, breaks(error), again=True)

    assert files(store.root) == before


def test_after_an_interrupt_the_result_is_made(store):
    with pytest.raises(KeyboardInterrupt):
        store.produce(Note, KEY, breaks(KeyboardInterrupt()))

    assert store.produce(Note, KEY, makes("whole")) == (Note(text="whole"), False)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_one(store, code):
    with pytest.raises(StoreError) as caught:
        store.produce(Note, KEY, breaks(OSError(code, os.strerror(code))))

    error = caught.value
    assert (str(error), error.hint, error.exit_code) == (
        f"{home(store)}: no space left on the disk", "free some space; nothing earlier was lost", 5,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "write", [lambda path: path.write_bytes(bytes(9000)), lambda path: np.save(path, np.ones(5000))]
)
def test_a_limit_of_file_sizes_is_no_full_disk(store, write):
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, usual[1]))
    try:
        with pytest.raises(StoreError, match=r"not written whole: (File too large|5000 requested and )") as caught:
            store.produce(Note, KEY, lambda folder, home: write(folder / "large.npy"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    assert caught.value.hint == "see what is limited or full: ulimit -f; df -h"
    assert files(store.root) == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG])
def test_a_full_disk_elsewhere_is_named_and_not_the_store(store, code):
    error = OSError(code, os.strerror(code), "/dev/full")

    with pytest.raises(StoreError, match=r"^/dev/full: "):
        store.produce(Note, KEY, breaks(error))


def test_any_other_failure_to_write_is_told_with_its_reason(store):
    with pytest.raises(StoreError) as caught:
        store.produce(Note, KEY, breaks(OSError(errno.EROFS, os.strerror(errno.EROFS))))

    error = caught.value
    assert (str(error), error.hint, error.exit_code) == (
        f"{home(store)}: cannot be written: Read-only file system", "choose another folder (--store, --out)", 5,
    )  # fmt: skip


def test_a_disk_that_is_full_when_the_record_is_written_keeps_nothing(store, monkeypatch):
    monkeypatch.setattr(store_module.os, "fsync", full)

    with pytest.raises(StoreError, match="no space left on the disk"):
        store.produce(Note, KEY, makes("first"))

    assert files(store.root) == {}


def test_a_disk_that_is_full_when_the_journal_is_written_keeps_the_result(store, monkeypatch):
    written = Path.open
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *a, **k: full() if self.suffix == ".jsonl" else written(self, *a, **k))
        with pytest.raises(StoreError, match="no space left on the disk"):
            store.produce(Note, KEY, makes("first"))

    assert store.produce(Note, KEY, makes("second")) == (Note(text="first"), True)


def test_a_killed_process_loses_only_what_it_was_making(store):
    store.produce(Note, OTHER, makes("earlier"))
    before = files(store.root)
    script = f"""
import os, signal
from pathlib import Path
from deploy_kit.store import Key, Store

def make(folder, home):
    (folder / "model.onnx").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

Store(Path({str(store.root)!r})).produce(dict, Key(stage="build", name="a", inputs=(), options=0, versions=()), make)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)

    Store(store.root)

    assert (killed.returncode, files(store.root)) == (-signal.SIGKILL, before)


# Leftovers of killed processes


def test_what_a_version_without_locks_left_is_swept_after_an_hour(store):
    stale, fresh = store.root / ".new-17-abcdef", store.root / ".new-18-abcdef"
    for folder in (stale, fresh):
        folder.mkdir()
        (folder / "model.onnx").write_text("half")
    os.utime(stale, (0, 0))

    Store(store.root)

    assert (stale.exists(), fresh.exists()) == (False, True)


def test_what_a_living_process_is_making_is_left_alone(store):
    def make(folder, home):
        (folder / "model.onnx").write_text("half")
        Store(store.root)  # another process of another container would do the same
        subprocess.run([sys.executable, "-c", OPENS.format(str(store.root))], check=True)
        return Note(text=(folder / "model.onnx").read_text())

    assert store.produce(Note, KEY, make)[0] == Note(text="half")


def test_nothing_but_the_result_stays(store):
    store.produce(Note, KEY, makes("whole"))

    assert sorted(path.name for path in store.root.iterdir()) == ["journal.jsonl", "quantize"]


def test_half_a_text_of_a_killed_process_goes_with_the_next_write(tmp_path):
    (tmp_path / ".report.md.0123.part").write_text("half")

    write_whole(tmp_path / "report.md", "whole")

    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe", b"[" * 100_000, b"7", b"null", b'{"stage": 1, "folder": "a/b", "recipe": {}}',
        b'{"stage": "quantize", "folder": 7, "recipe": {}}', b'{"stage": "quantize", "folder": "../b", "recipe": {}}',
        b'{"stage": "quantize", "folder": "/etc/passwd", "recipe": {}}',
        b'{"stage": "quantize", "folder": "a\\u0000/b", "recipe": {}}',
        b'{"stage": "quantize", "folder": "quantize/int8", "recipe": []}',
        b'{"stage": "quantize", "folder": ["a", "b"]}',
        b'{"stage": "quantize", "folder": "%s/b", "recipe": {}}' % (b"a" * 300),
        b'{"stage": "quantize", "folder": "\\ud800/b", "recipe": {}}',
    ],
    ids=range(13),
)  # fmt: skip
def test_a_line_of_the_journal_that_says_nothing_is_passed_over(store, line):
    store.produce(Note, KEY, makes("kept"))
    with (store.root / "journal.jsonl").open("ab") as journal:
        journal.write(line + b"\n")

    assert store.newest(Note, "quantize")[0] == Note(text="kept")
    assert store.all(Note, "quantize") == [Note(text="kept")]


@pytest.mark.parametrize("when", ["1" + "0" * 400, "1e300", "-1", "NaN", "Infinity", '"noon"'])
def test_a_time_that_no_calendar_has_is_not_known(store, when):
    store.produce(Note, KEY, makes("kept"))
    journal = store.root / "journal.jsonl"
    journal.write_text(re.sub(r'"when": [0-9.]+', f'"when": {when}', journal.read_text()))

    assert [result.used for result in store.results()] == [0.0]


@pytest.mark.parametrize("gone", [".new-0123456789abcdef", "quantize/gone"])
def test_results_are_listed_while_another_process_removes_some(store, gone, monkeypatch):
    store.produce(Note, KEY, makes("kept"))
    scandir, folder = os.scandir, store.root / gone
    (folder / "part").mkdir(parents=True)

    def remove_first(place):
        if str(place).startswith(str(folder)):
            shutil.rmtree(folder, ignore_errors=True)
        return scandir(place)

    monkeypatch.setattr(os, "scandir", remove_first)

    assert str(home(store).relative_to(store.root)) in [result.folder for result in store.results()]


def test_a_store_that_cannot_be_written_is_read(store, tmp_path):
    kept = artifact(store)
    store.reject(kept, Verdict(word="rejected", reasons=("one",)))
    store.produce(Note, OTHER, makes("kept"))
    passed = dataclasses.replace(PASSPORT, path=str((home(store, OTHER) / "model.onnx").relative_to(store.root)))
    script = f"""
from pathlib import Path
from deploy_kit.records.artifacts import *
from deploy_kit.records.made_by import MadeBy
from test_store import KEY, Note, Store, Verdict, makes
store = Store(Path({str(store.root)!r}))
assert store.produce(Note, KEY, makes("again")) == (Note(text="weights"), True)
assert store.newest(Note, "quantize")[0] == Note(text="kept")
store.reject({kept!r}, Verdict(word="rejected", reasons=("one",)))
store.accept({passed!r})
"""
    read_only = ["unshare", "-m", "sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"']
    probe = subprocess.run([*read_only, str(store.root), "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("no file system can be mounted read-only here: root and util-linux are needed")

    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [*read_only, str(store.root), sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path}, check=False
    )

    assert ended.returncode == 0


# Records and files that were changed


def changed(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def test_a_record_whose_text_was_changed_is_refused(store):
    store.produce(Note, KEY, makes("93.56 %"))
    changed(home(store) / "record.json", "93.56", "98.56")

    for read in (
        lambda: store.produce(Note, KEY, makes("again")),
        lambda: store.kept(Note, KEY),
        lambda: store.newest(Note, "quantize"),
        lambda: store.all(Note, "quantize"),
    ):
        with pytest.raises(StoreError, match=r"record\.json: missing, or changed since it was made") as caught:
            read()
        assert caught.value.hint == f"delete '{home(store)}' and run again"


@pytest.mark.parametrize("text", ['{"text": "93.', "[" * 10_000, "\udcff"])
def test_a_record_that_is_cut_off_is_named_by_who_reads_and_made_again_by_who_makes(store, text):
    store.produce(Note, KEY, makes("first"))
    (home(store) / "record.json").write_text(text, errors="surrogateescape")

    for read in (lambda: store.newest(Note, "quantize"), lambda: store.all(Note, "quantize")):
        with pytest.raises(StoreError, match=r"record\.json: missing, or changed since it was made"):
            read()

    assert store.produce(Note, KEY, makes("second")) == (Note(text="second"), False)


def test_what_the_cure_of_a_changed_record_says_works(store):
    store.produce(Note, KEY, makes("first"))
    changed(home(store) / "record.json", "first", "other")
    shutil.rmtree(home(store))

    assert store.produce(Note, KEY, makes("second")) == (Note(text="second"), False)


def test_a_file_whose_bit_was_flipped_is_refused_by_whoever_reads_its_record(store):
    def make(folder, at):
        (folder / "model.onnx").write_bytes(b"weights")
        return dataclasses.replace(PASSPORT, path=f"{at}/model.onnx", sha256=sha256_of(folder / "model.onnx"))

    store.produce(Artifact, KEY, make)
    (home(store) / "model.onnx").write_bytes(b"veights")

    with pytest.raises(StoreError, match=r"model\.onnx: missing, or changed since it was made"):
        store.newest(Artifact, "quantize")


def test_a_result_whose_file_was_deleted_is_made_again(store):
    def make(folder, at):
        (folder / "model.onnx").write_bytes(b"weights")
        return dataclasses.replace(PASSPORT, path=f"{at}/model.onnx", sha256=sha256_of(folder / "model.onnx"))

    store.produce(Artifact, KEY, make)
    (home(store) / "model.onnx").unlink()

    assert store.newest(Artifact, "quantize") is None
    assert store.produce(Artifact, KEY, make)[1] is False


def test_a_record_of_the_first_version_has_no_hash_and_is_read(store):
    store.produce(Note, KEY, makes("old"))
    (home(store) / "record.json").write_text('{"text":"old"}')

    assert store.kept(Note, KEY) == Note(text="old")


def test_a_store_whose_path_is_no_utf8_is_refused_before_it_is_made(tmp_path):
    with pytest.raises(InputError, match="expected a path in UTF-8"):
        Store(tmp_path / "caf\udce9")

    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_store_is_named(tmp_path):
    (tmp_path / "store").write_text("")

    with pytest.raises(StoreError) as caught:
        Store(tmp_path / "store")

    assert (str(caught.value), caught.value.hint) == (
        f"{tmp_path / 'store'}: cannot be written: File exists", "choose another folder (--store, --out)",
    )  # fmt: skip


# Files and their passports


def test_a_file_is_found_by_its_passport(store):
    kept = artifact(store)

    assert store.path(kept).read_text() == "weights"


def test_a_file_that_changed_by_one_byte_is_noticed(store):
    kept = artifact(store)
    (store.root / kept.path).write_text("Weights")

    with pytest.raises(StoreError) as caught:
        store.path(kept)

    assert str(caught.value) == f"{store.root / kept.path}: missing, or changed since it was made"


def test_a_file_beside_it_that_changed_is_noticed(store):
    kept = artifact(store)
    weights = (store.root / kept.path).with_suffix(".bin")
    weights.write_bytes(b"weights")
    kept = dataclasses.replace(kept, sha256=digest_of(store.root / kept.path))
    weights.write_bytes(b"Weights")

    with pytest.raises(StoreError, match="missing, or changed since it was made"):
        store.path(kept)


def test_a_file_that_is_gone_is_noticed(store):
    kept = artifact(store)
    (store.root / kept.path).unlink()

    with pytest.raises(StoreError) as caught:
        store.path(kept)

    assert str(caught.value) == f"{store.root / kept.path}: missing, or changed since it was made"


def test_a_changed_file_hints_to_delete_its_folder(store):
    kept = artifact(store)
    (store.root / kept.path).write_text("Weights")

    with pytest.raises(StoreError) as caught:
        store.path(kept)

    assert (caught.value.hint, caught.value.exit_code) == (f"delete '{home(store)}' and run again", 5)


def test_nothing_is_rejected_before_a_check(store):
    assert not store.rejected(artifact(store))


def test_a_rejected_artifact_is_known_as_one(store):
    kept = artifact(store)

    store.reject(kept, Verdict(word="rejected", reasons=("SQNR 12 dB, at least 15 asked for",)))

    assert store.rejected(kept)


def test_a_rejected_artifact_carries_the_reasons(store):
    kept = artifact(store)

    store.reject(kept, Verdict(word="undecided", reasons=("one", "two")))

    assert json.loads((home(store) / "rejected.json").read_text()) == {
        "word": "undecided",
        "reasons": ["one", "two"],
    }


@pytest.mark.parametrize(
    ("mark", "word"),
    [('{"word": "undecided", "reasons": []}', "undecided"), ('{"reasons": ["one"]}', "rejected"), ("[", "rejected")],
)
def test_what_was_not_accepted_is_not_copied_and_the_word_is_said(store, tmp_path, mark, word):
    kept = artifact(store)
    (home(store) / "rejected.json").write_text(mark)

    with pytest.raises(RequestError, match=f"{word} by its last check, not copied"):
        store.copy_out(kept, tmp_path / "out.onnx")


def test_a_check_that_passes_takes_the_mark_away(store):
    kept = artifact(store)
    store.reject(kept, Verdict(word="rejected", reasons=("one",)))

    store.accept(kept)

    assert not store.rejected(kept)


def test_accepting_what_was_never_rejected_changes_nothing(store):
    kept = artifact(store)
    before = files(store.root)

    store.accept(kept)

    assert files(store.root) == before


# The journal


def entry(stage, key, recipe=None):
    return JournalEntry(stage=stage, folder=f"{key.stage}/{key.name}-{key.digest[:12]}", recipe=recipe or {})


def test_a_new_store_has_no_entries(store):
    assert list(store.entries()) == []


def test_entries_are_newest_first(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))

    assert list(store.entries()) == [entry("quantize", OTHER), entry("quantize", KEY)]


def test_a_result_used_again_is_the_newest(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))
    store.produce(Note, KEY, makes("third"))

    assert next(store.entries()) == entry("quantize", KEY)


def test_an_entry_notes_the_recipe(tmp_path):
    store = Store(tmp_path / "store", {"name": "demo"})

    store.produce(Note, KEY, makes("first"))

    assert list(store.entries()) == [entry("quantize", KEY, {"name": "demo"})]


@pytest.mark.parametrize("line", ['{"stage": "quant', "", "3", "null", "[]", '{"stage": "quantize"}', "\ufffd"])
def test_a_line_cut_off_is_passed_over(store, line):
    store.produce(Note, KEY, makes("first"))
    with (store.root / "journal.jsonl").open("a") as journal:
        journal.write(line + "\n")

    assert list(store.entries()) == [entry("quantize", KEY)]


def test_a_line_cut_off_does_not_swallow_the_next(store):
    store.produce(Note, KEY, makes("first"))
    with (store.root / "journal.jsonl").open("a") as journal:
        journal.write('{"stage": "quantize", "fold')

    store.produce(Note, OTHER, makes("second"))

    assert next(store.entries()) == entry("quantize", OTHER)


def test_a_result_whose_folder_is_gone_is_passed_over(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))
    (home(store, OTHER) / "record.json").unlink()

    assert list(store.entries()) == [entry("quantize", KEY)]


def test_newest_gives_the_newest_of_its_stages(store):
    build = dataclasses.replace(KEY, stage="build")
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))
    store.produce(Note, build, makes("third"))

    assert store.newest(Note, "quantize", "export") == (Note(text="second"), entry("quantize", OTHER))


def test_newest_gives_the_newest_that_fits(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))

    found = store.newest(Note, "quantize", where=lambda note: note.text == "first")

    assert found == (Note(text="first"), entry("quantize", KEY))


def test_newest_gives_nothing_where_nothing_fits(store):
    store.produce(Note, KEY, makes("first"))

    assert store.newest(Note, "build") is None


def test_all_lists_each_result_once_newest_first(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, OTHER, makes("second"))
    store.produce(Note, KEY, makes("third"))

    assert store.all(Note, "quantize") == [Note(text="first"), Note(text="second")]


def test_all_lists_only_its_stages(store):
    store.produce(Note, KEY, makes("first"))
    store.produce(Note, dataclasses.replace(KEY, stage="build"), makes("second"))

    assert store.all(Note, "build") == [Note(text="second")]


# Text files


def test_a_text_file_is_written_with_its_folders(tmp_path):
    write_whole(tmp_path / "a" / "b" / "report.md", "ä\n")

    assert (tmp_path / "a" / "b" / "report.md").read_text(encoding="utf-8") == "ä\n"


def test_a_text_file_leaves_nothing_beside_it(tmp_path):
    write_whole(tmp_path / "report.md", "text")

    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]


def test_who_reads_while_a_text_file_is_written_sees_the_old_one_whole(tmp_path):
    write_whole(tmp_path / "report.md", "old")

    with (tmp_path / "report.md").open() as reader:
        write_whole(tmp_path / "report.md", "new")
        assert reader.read() == "old"


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    write_whole(tmp_path / "report.md", "old")
    monkeypatch.setattr(store_module.os, "fsync", full)

    with pytest.raises(StoreError):
        write_whole(tmp_path / "report.md", "new")

    assert files(tmp_path) == {"report.md": b"old"}


@pytest.mark.parametrize("whole", [0, 1, 2])
def test_a_disk_that_is_full_behind_any_file_leaves_all_that_belong_together_as_they_were(tmp_path, monkeypatch, whole):
    texts = [tmp_path / name for name in ("report.json", "report.html", "report.md")]
    write_together(dict.fromkeys(texts, "old"))
    left = iter(range(whole))

    def fills_up(descriptor):
        if next(left, None) is None:
            full()

    monkeypatch.setattr(store_module.os, "fsync", fills_up)
    with pytest.raises(StoreError, match=re.escape(f"{texts[whole]}: no space left on the disk")):
        write_together(dict.fromkeys(texts, "new"))

    assert files(tmp_path) == dict.fromkeys((path.name for path in texts), b"old")


def test_a_disk_that_is_full_behind_a_copy_leaves_no_copy_without_its_passport(store, tmp_path, monkeypatch):
    kept, out = artifact(store), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(store_module.os, "fsync", full)

    with pytest.raises(StoreError, match=r"out\.onnx\.passport\.json: no space left on the disk"):
        store.copy_out(kept, out / "out.onnx")

    assert files(out) == {}
    monkeypatch.undo()
    assert store.copy_out(kept, out / "out.onnx") == out / "out.onnx"


def test_a_full_disk_names_the_text_file(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module.os, "fsync", full)

    with pytest.raises(StoreError) as caught:
        write_whole(tmp_path / "report.md", "new")

    assert str(caught.value) == f"{tmp_path / 'report.md'}: no space left on the disk"


def test_an_interrupt_leaves_the_old_text(tmp_path, monkeypatch):
    write_whole(tmp_path / "report.md", "old")

    def interrupt(descriptor):
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module.os, "fsync", interrupt)

    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "report.md", "new")

    assert files(tmp_path) == {"report.md": b"old"}


def test_a_file_in_the_place_of_a_folder_is_a_store_error(tmp_path):
    (tmp_path / "out").write_text("")

    with pytest.raises(StoreError, match="cannot be written"):
        write_whole(tmp_path / "out" / "report.md", "text")


def test_an_input_that_is_gone_is_named_and_not_the_store(tmp_path: Path) -> None:
    store, image = Store(tmp_path / "store"), tmp_path / "images" / "cat.png"

    def make(folder: Path, home: str) -> Artifact:
        image.read_bytes()
        raise AssertionError

    with pytest.raises(StoreError) as caught:
        store.produce(Artifact, Key(stage="export", name="a", inputs=(), options={}, versions=()), make)

    assert str(caught.value).startswith(f"{image}: no such file, while '{store.root / 'export' / 'a-'}")
    assert caught.value.hint == "run it again with its files in place"
