"""Names from files: what steers a terminal, forges a line or is markup is shown, and never done."""

import json
import os
import subprocess

import pytest

from deploy_kit.base.plain_text import one_line, printable, shell_word, shown

HOSTILE = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;owned\x07",
    "an 8-bit CSI": "\x9b2J",
    "a backspace": "model\x08\x08\x08\x08\x08evil",
    "a carriage return": "safe\rerror: none",
    "a turned text": "gpj.\u202eexe",
    "an isolate": "\u2066a\u2069",
    "a line separator": "a\u2028b",
    "a lone surrogate": "caf\udce9",
    "a NUL": "a\0b",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    made = printable(text)

    assert made.isprintable()
    made.encode()


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_json_reads_the_escapes_as_the_same_text(text: str) -> None:
    written = printable(json.dumps({"name": text}, ensure_ascii=False))

    assert json.loads(written) == {"name": text}


def test_plain_text_stays_as_it_is() -> None:
    text = "Größe 3×3, 日本語, 👍, a\ttab\nand a line"

    assert printable(text) == text


def test_one_line_is_one_line() -> None:
    assert one_line("a\n  fix: rm -rf ~\tb") == "a\\n  fix: rm -rf ~\\tb"


@pytest.mark.parametrize(
    "name",
    ["plain.pth", "a b", "a'b", 'a"b', "$(id)", "a\nb", "größe-模型", "caf\udce9", "\x1b[31mred", "a\\b'\n\"", "~", ""],
)
def test_a_path_is_one_word_of_a_shells_line(name: str) -> None:
    said = subprocess.run(["bash", "-c", f"printf %s {shell_word(name)}"], capture_output=True, check=True).stdout

    assert said == os.fsencode(name)
    assert shell_word(name).isprintable()


def test_a_path_that_begins_as_an_option_is_none() -> None:
    assert shell_word("-x.pth") == "./-x.pth"


def test_a_value_is_shown_shortened() -> None:
    assert shown("x" * 5000) == f"'{'x' * 199}… (5,002 characters)"


def test_an_integer_that_python_does_not_print_is_told() -> None:
    assert shown(1 << 100_000) == "a int too large to print"
