"""Option groups: a record in the signature of a command is its options on the command line, each declared once."""

import inspect
from collections import defaultdict
from dataclasses import dataclass
from typing import Annotated, Any, get_args

import pytest
import typer
from typer.models import OptionInfo
from typer.testing import CliRunner

from deploy_kit.cli import CATALOGUE
from deploy_kit.cli._option_groups import Only, expand_groups
from deploy_kit.cli._options import OutputOptions


@dataclass(frozen=True, kw_only=True)
class Drinks:
    """A group."""

    tea: Annotated[int, typer.Option("--tea", help="Cups of tea.")] = 1
    milk: Annotated[bool, typer.Option("--milk", help="Add milk.")] = False


def ran(command: Any, *arguments: str) -> str:
    """Run a command of one's own, and return what it prints."""
    app = typer.Typer(rich_markup_mode=None)
    app.command()(expand_groups(command))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_group_is_given_as_options_and_handed_on_as_a_record() -> None:
    def order(name: str, *, drinks: Drinks, loud: bool = False) -> None:
        typer.echo(f"{name} {drinks} {loud}")

    assert ran(order, "ada", "--tea", "3", "--milk", "--loud") == f"ada {Drinks(tea=3, milk=True)} True\n"
    assert ran(order, "ada") == f"ada {Drinks()} False\n"


def test_the_fields_stand_in_the_help_in_place_of_the_parameter() -> None:
    def order(*, first: bool = False, drinks: Drinks, last: bool = False) -> None:
        """Order."""

    parameters = inspect.signature(expand_groups(order)).parameters

    assert list(parameters) == ["first", "tea", "milk", "last"]
    assert parameters["tea"].default == 1
    assert "Cups of tea." in ran(order, "--help")


def test_only_the_options_named_are_offered_in_their_order() -> None:
    def order(*, output: Annotated[OutputOptions, Only("as_json", "quiet")]) -> None:
        typer.echo(output)

    assert list(inspect.signature(expand_groups(order)).parameters) == ["as_json", "quiet"]
    assert ran(order, "--json") == f"{OutputOptions(as_json=True)}\n"


def test_a_field_that_a_group_does_not_have_is_a_bug() -> None:
    def order(*, drinks: Annotated[Drinks, Only("coffee")]) -> None: ...

    with pytest.raises(KeyError, match="coffee"):
        expand_groups(order)


def test_two_options_of_one_name_are_a_bug() -> None:
    def order(*, tea: bool = False, drinks: Drinks) -> None: ...

    with pytest.raises(ValueError, match="tea"):
        expand_groups(order)


def test_options_that_commands_share_are_declared_once() -> None:
    declared = defaultdict[tuple[object, ...], set[int]](set)
    for name in CATALOGUE.names():
        command = CATALOGUE.get(name)
        for call in (command.call, *command.parts.values()):
            for parameter in inspect.signature(expand_groups(call)).parameters.values():
                for option in get_args(parameter.annotation):
                    if isinstance(option, OptionInfo):
                        declared[parameter.name, option.help].add(id(option))

    assert {key: len(places) for key, places in declared.items() if len(places) > 1} == {}
