"""The help of each command: groups, defaults, an example that parses, and closed sets that are refused at once."""

import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer.main
from command_line import deploykit

from deploy_kit.cli import CATALOGUE, build_app

APP = typer.main.get_command(build_app())
COMMANDS = [
    (name, *([part] if part else []))
    for name in CATALOGUE.names()
    for part in (tuple(CATALOGUE.get(name).parts) or ("",))
]


def command(path: tuple[str, ...]) -> Any:
    found: Any = APP
    for name in path:
        found = found.commands[name]
    return found


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_has_an_example_that_parses(path: tuple[str, ...]) -> None:
    example = command(path).epilog

    program, *words = shlex.split(example)

    assert (program, tuple(words[: len(path)])) == ("deploykit", path)
    command(path).make_context(path[-1], words[len(path) :])  # refuses what it does not know


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_flag_of_a_command_means_two_things(path: tuple[str, ...]) -> None:
    flags = [flag for option in command(path).params for flag in (*option.opts, *option.secondary_opts)]

    assert sorted(flags) == sorted(set(flags))


def test_an_example_is_one_line_that_can_be_copied() -> None:
    said = deploykit("deploy", "-h")

    assert said.code == 0
    assert f"Example:\n  {command(('deploy',)).epilog}\n" in said.out
    assert len(command(("deploy",)).epilog) > 80  # it would have been wrapped


def test_options_stand_under_the_heading_of_their_group() -> None:
    out = deploykit("export", "--help").out

    headings = [line for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert headings == [
        "Arguments:", "Options:", "Preprocessing, where the file does not state it:",
        "Facts of a checkpoint that the file does not state:", "Images, recipe and place:", "Output:", "Example:",
    ]  # fmt: skip
    assert out.index("--mean") > out.index("Preprocessing,")
    assert out.index("--json") > out.index("\nOutput:")


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        (("check", "--orientation", "upside-down"), "'stored', 'upright'"),
        (("export", "--exporter", "tensorflow"), "'dynamo', 'torchscript'"),
        (("bench", "--span", "all"), "'compute', 'whole'"),
        (("deploy", "x.pth", "--crops", "5"), "'1', '10'"),
        (("inspect", "x.pth", "--stem-pool", "mean"), "'none', 'max', 'avg', 'blur'"),
    ],
)
def test_a_value_outside_a_closed_set_is_refused_with_the_set(arguments: tuple[str, ...], choices: str) -> None:
    said = deploykit(*arguments)

    assert said.code == 2
    assert choices in said.err


def test_completion_is_offered() -> None:
    out = deploykit("--help").out

    assert "--install-completion" in out and "--show-completion" in out


def _words(shell: str, line: str) -> dict[str, str]:
    """Return what a shell says to the program where its user presses Tab at the end of a line."""
    if shell == "bash":
        return {"COMP_WORDS": line, "COMP_CWORD": str(len(line.split(" ")) - 1)}
    return {"_TYPER_COMPLETE_ARGS": line} | ({"_TYPER_COMPLETE_FISH_ACTION": "get-args"} if shell == "fish" else {})


@pytest.mark.slow
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("deploykit dep", "deploy"),
        ("deploykit store pr", "prune"),
        ("deploykit bench --sp", "--span"),
        ("deploykit bench --span wh", "whole"),
    ],
)
def test_completion_completes(shell: str, line: str, offered: str) -> None:
    asked = {**os.environ, "_DEPLOYKIT_COMPLETE": f"complete_{shell}", **_words(shell, line)}
    program = "import sys; sys.argv = ['deploykit']; from deploy_kit.cli import main; main()"

    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=asked)

    found = re.findall(r"[\w-]+", said.stdout)

    assert offered in found
    assert "export" not in found and "--rounds" not in found


def test_the_help_has_a_whole_sentence_for_each_command() -> None:
    out = " ".join(deploykit("--help").out.split())

    listed = [
        " ".join((CATALOGUE.get(name).call.__doc__ or "").partition("\n")[0].split()) for name in CATALOGUE.names()
    ]

    assert [sentence for sentence in listed if not (sentence.endswith(".") and sentence in out)] == []


def test_run_without_a_recipe_does_not_run_the_demo() -> None:
    said = deploykit("run")

    assert said.code == 2
    assert "Missing argument" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("bench --threads 4", "No such option: --threads; build has it"),
        ("check --batch=4", "No such option: --batch; export, bench have it"),
        ("bench --span-of whole", "No such option: --span-of (Possible options: --span)"),
    ],
)
def test_an_option_of_another_command_is_said_to_be_one(words: str, message: str) -> None:
    said = deploykit(*words.split())

    assert (said.code, said.err.rstrip().endswith(message)) == (2, True), said.err
