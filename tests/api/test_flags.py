"""Keywords of the API are the command line's flags: what is learned on one side is known on the other."""

import dataclasses
import inspect
import typing
from typing import Any

import pytest
import typer

import deploy_kit
from deploy_kit import cli
from deploy_kit.api import _facts, _step
from deploy_kit.base.errors import RequestError
from deploy_kit.cli import _options
from deploy_kit.cli._checkpoint_options import CheckpointOptions, ImageOptions

# What is said of a checkpoint, and of how its images are prepared.
FACTS = {
    "input" if field.name == "size" else field.name
    for group in (ImageOptions, CheckpointOptions)
    for field in dataclasses.fields(group)
}
# Input of a step: the command line takes it from the store, Python is handed it.
SUBJECTS = {"checkpoint", "graph", "engine", "engines"}
# How the API follows progress, and how it says what an exit code says.
OWN = {"on_progress", "allow_invalid", "orientation"}
# What only a command has: how it prints, where it looks for its input, and what only judges or shows.
PRINTING = {"quiet", "json", "no_color", "help", "save_recipe", "recipe", "device"}


def flags(command: str) -> set[str]:
    """Return a command's flags, as keywords would be named."""
    options = typer.main.get_command(cli.build_app()).commands[command].params  # type: ignore[attr-defined]
    return {text[2:].replace("-", "_") for option in options for text in option.opts if text.startswith("--")}


def keywords(name: str) -> set[str]:
    return set(inspect.signature(getattr(deploy_kit, name)).parameters)


@pytest.mark.parametrize(
    ("name", "only_here", "only_there"),
    [
        ("export", set(), set()),
        ("simplify", {"passes"}, set()),
        # One precision is one word; a budget has a function of its own, and what INT8 made of blocks is told, not made.
        (
            "quantize",
            {"precision"},
            {
                "int8", "fp16", "bf16", "fp32", "explain", "max_drop", "sensitivity", "tune", "time_limit",
                "tune_masks", "task", "ignore_index",
            },
        ),
        # Options of an engine are a mapping.
        (
            "build",
            {"options"},
            {"build_option", "compute_capability", "min_shapes", "opt_shapes", "max_shapes", "variant"},
        ),
        # The check images are those that the graph was exported with.
        ("slim", set(), {"explain", "images"}),
        # A file of one's own is judged by the command alone; the API checks what `build` returned.
        (
            "check",
            set(),
            {
                "layers", "all", "variant", "against", "golden", *FACTS,
            },
        ),
        # Milliseconds have their unit in the name; what tables show and what ends a command is not measured.
        (
            "bench",
            {"latency_budget_ms"},
            {
                "all", "engine", "variant", "percentiles", "latency_budget", "baseline", "fail_on_regression",
                "export_times", "export_profile", "beside",
            },
        ),
    ],
)  # fmt: skip
def test_keywords_are_named_as_the_flags(name: str, only_here: set[str], only_there: set[str]) -> None:
    mine, theirs = keywords(name) - SUBJECTS - OWN, flags(name) - OWN

    assert mine - theirs == only_here
    assert theirs - keywords(name) - PRINTING == only_there


def test_the_store_is_the_command_lines() -> None:
    option = typing.get_args(_options.StorePath)[1]

    assert str(_options.STORE) == _step.STORE
    assert option.envvar == _step.STORE_VARIABLE


GRAY: dict[str, Any] = {"mean": 0.286, "std": 0.353, "color": None, "resize": None, "interpolation": None}


@pytest.mark.parametrize(
    ("size", "mean", "std", "given"),
    [
        ("28x28", "0.286", "0.353", {"input": (28, 28), **GRAY}),
        ("28x28", "0.286", "0.353", {"input": "28x28", **GRAY, "mean": [0.286], "std": [0.353]}),
        ("32x32x32", None, None, {"input": [32, 32, 32], **dict.fromkeys(GRAY)}),
        ("64", None, None, {"input": 64, **dict.fromkeys(GRAY)}),
        (None, None, None, {"input": None, **dict.fromkeys(GRAY)}),
    ],
)
def test_an_input_means_the_same_on_both_sides(size: Any, mean: Any, std: Any, given: dict[str, Any]) -> None:
    assert _facts.image(given) == ImageOptions(size=size, mean=mean, std=std).source_table()


def test_three_means_are_rgb_and_a_resize_travels() -> None:
    given = {"input": (224, 224), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

    table = _facts.image({**given, "color": None, "resize": 256, "interpolation": "bicubic"})["preprocess"]

    assert (table["color"], table["resize"], table["interpolation"]) == ("rgb", 256, "bicubic")


@pytest.mark.parametrize(
    "given",
    [
        {"input": (28, 28), **GRAY, "std": None},
        {"input": None, **GRAY},
        {"input": 28, **GRAY},
        {"input": (28, 28), **dict.fromkeys(GRAY), "resize": 32},
    ],
)
def test_half_a_preprocessing_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="input, mean and std belong together") as caught:
        _facts.image(given)

    assert caught.value.hint == "e.g. input=(28, 28), mean=0.286, std=0.353"


def test_an_input_that_is_no_size_is_refused() -> None:
    with pytest.raises(RequestError, match="input: expected whole numbers, found '28 by 28'"):
        _facts.image({"input": "28 by 28", **dict.fromkeys(GRAY)})
