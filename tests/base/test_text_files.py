"""YAML and JSON that anybody may have written: read within bounds, or refused by what is wrong with it."""

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from deploy_kit.base import text_files
from deploy_kit.base.errors import DeployKitError, InputError, RecipeError
from deploy_kit.base.text_files import read_json, read_text, read_yaml, verify_utf8


def bomb(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


REFUSED = {
    "deep lists": ("[" * 5000 + "]" * 5000, "at most 50 levels"),
    "a chain of anchors": (
        "\n".join(f"a{n}: &a{n} [{f'*a{n - 1}' * (n > 0)}]" for n in range(80)),
        "at most 50 levels",
    ),
    "deep tables": ("\n".join(" " * n + "a:" for n in range(400)), "at most 50 levels"),
    "a list in itself": ("a: &a [*a]", "contains itself"),
    "a table in itself": ("a: &a {b: *a}", "contains itself"),
    "a key that is itself": ("&a {? *a : 1}", "contains itself"),
    "many anchors": (bomb(9), "at most 20,000 values"),
    "merged tables": (merge_bomb(9), "at most 20,000 values"),
    "many values": ("[" + "1," * 30_000 + "]", "at most 20,000 values"),
    "5,000 digits": ("a: " + "9" * 5000, "a number of 5,000 characters"),
    "5,000 hexadecimal digits": ("a: 0x" + "f" * 5000, "a number of 5,002 characters"),
    "a number to the base 60": ("a: 1" + ":59" * 200_000, "a number of 600,001 characters"),
    "a date": ("a: 2026-11-28", "a timestamp, expected tables, lists, texts and numbers; put texts in quotes"),
    "bytes": ("a: !!binary aGVsbG8=", "a binary, expected"),
    "a set": ("a: !!set {b}", "a set, expected"),
    "an octal number of YAML 1.1": ("a: 010", "'010' is one number for some readers and another for others"),
    "a short number to the base 60": ("a: 1:30", "'1:30' is one number for some readers"),
    "a number with an underscore": ("a: 1_000", "'1_000' is one number for some readers"),
    "a key given twice": ("a: 1\na: 2", "the key 'a' is given twice"),
    "a date that does not exist": ("a: 2026-02-30", "not YAML"),
    "an object": ("a: !!python/object/apply:os.system [id]", "not YAML"),
    "two documents": ("a: 1\n---\nb: 2", "not YAML"),
    "a control character": ("a: \x1b[31m", "not YAML"),
    "more than a megabyte": ("# " + "x" * (1 << 20), "at most 1,048,576 bytes"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_hostile_yaml_is_refused_at_once_and_by_its_name(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(text)

    begun = time.process_time()
    with pytest.raises(DeployKitError) as caught:
        read_yaml(tmp_path / "a.yaml")

    assert said in str(caught.value)
    assert (caught.value.exit_code, str(caught.value).isprintable() or "\n" in str(caught.value)) == (2, True)
    assert time.process_time() - begun < 5


def test_a_path_that_is_no_utf8_is_refused_with_what_to_do_instead() -> None:
    with pytest.raises(
        InputError, match=r"caf.*: expected a path in UTF-8, as native libraries take no other"
    ) as caught:
        verify_utf8(Path("caf\udce9"), "choose another --store")

    assert caught.value.hint == "rename it (mv), or choose another --store"


def test_anchors_in_measure_are_read_as_pyyaml_reads_them(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: [1, 2]}\nother:\n  <<: *base\n  b: 3\nagain: *base\n"
    (tmp_path / "a.yaml").write_text(text)

    assert read_yaml(tmp_path / "a.yaml") == yaml.safe_load(text)


def test_a_number_in_scientific_notation_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: 1e-5\nb: '1e-5'\n")

    assert read_yaml(tmp_path / "a.yaml") == {"a": 1e-5, "b": "1e-5"}


def test_a_long_text_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"a: {'word ' * 100}\nb: '{'9' * 5000}'\n")

    assert len(read_yaml(tmp_path / "a.yaml")["b"]) == 5000


def test_an_empty_file_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing\n")

    assert read_yaml(tmp_path / "a.yaml") is None


def test_deep_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 200_000)

    with pytest.raises(InputError, match="nested too deeply"):
        read_json(tmp_path / "a.json")


def test_a_key_that_occurs_twice_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": {"b": 1, "b": 2}}')

    with pytest.raises(InputError, match="not JSON: the key 'b' occurs twice"):
        read_json(tmp_path / "a.json")


def test_an_integer_of_5000_digits_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("9" * 5000)

    with pytest.raises(InputError, match="not JSON"):
        read_json(tmp_path / "a.json")


def unwritten_pipe(path: Path) -> Path:
    os.mkfifo(path)
    return path


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def other_bytes(path: Path) -> Path:
    path.write_bytes(b"caf\xe9: 1\n")
    return path


UNREADABLE: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a pipe that nobody writes": (unwritten_pipe, "a pipe that does not end"),
    "a folder": (folder, "Is a directory"),
    "an endless device": (lambda _: Path("/dev/zero"), "at most 1,000 bytes"),
    "Latin-1": (other_bytes, "expected text in UTF-8, found the byte 0xe9"),
    "a name with a NUL": (lambda path: Path(f"{path}\0"), "cannot be read"),
}


@pytest.mark.parametrize(("make", "said"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_text_ends_at_once(
    make: Callable[[Path], Path], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_files, "_SILENCE_S", 0.05)
    path = make(tmp_path / "a")
    begun = time.monotonic()

    with pytest.raises(InputError) as caught:
        read_text(path, 1000)

    assert said in str(caught.value)
    assert time.monotonic() - begun < 5


def test_a_pipe_that_somebody_writes_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    writer = threading.Thread(target=lambda: (tmp_path / "a").write_text(json.dumps({"a": [1] * 100_000})))
    holder = os.open(tmp_path / "a", os.O_RDWR)  # so that the reader does not come before the writer
    writer.start()
    while not text_files.select.select([holder], [], [], 0.01)[0]:
        pass
    os.set_blocking(holder, False)

    closer = threading.Timer(0.3, lambda: os.close(holder))
    closer.start()
    try:
        assert len(read_json(tmp_path / "a")["a"]) == 100_000
    finally:
        writer.join()
        closer.join()


def test_a_pipe_that_goes_silent_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_files, "_SILENCE_S", 0.05)
    os.mkfifo(tmp_path / "a")
    holder = os.open(tmp_path / "a", os.O_RDWR)
    try:
        with pytest.raises(InputError, match=r"a pipe that does not end: waited for 0\.05 s"):
            read_text(tmp_path / "a", 1000)
    finally:
        os.close(holder)


def test_a_missing_file_is_the_callers_to_tell(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_yaml(tmp_path / "a.yaml")


def test_recipe_errors_name_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &a [*a]")

    with pytest.raises(RecipeError) as caught:
        read_yaml(tmp_path / "a.yaml")

    assert str(caught.value).count("a.yaml") == 1
