"""The command line: a thin shell that parses, calls and renders. Exit codes are given here and nowhere else.

    0 yes · 1 the answer is no · 2 the request is wrong · 3 a package is missing · 4 the device · 5 a stage failed ·
    6 undecided: the measurement is not valid, or the images do not decide · 70 a bug, with its trace ·
    130 interrupted · 143 terminated

A command is a file of this folder with ``COMMAND``; it imports what it needs when it is called.
"""

import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import typer

from deploy_kit.base import lazy
from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import DeployKitError, MissingPackageError
from deploy_kit.cli._help import HelpfulCommand
from deploy_kit.cli._option_groups import expand_groups

_SETTINGS = {"help_option_names": ["-h", "--help"]}


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command.

    Attributes:
        call: Function of the command: its parameters are the options, its docstring is the help.
        order: Position in the help; lower comes first.
        parts: Subcommands by name, if it has any; `call` then only carries the help.
        example: A command line to copy, below the help; of subcommands one for each in `examples`.
        examples: Examples of the subcommands, by name.
    """

    call: Callable[..., Any]
    order: int
    parts: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    example: str = ""
    examples: Mapping[str, str] = field(default_factory=dict)


CATALOGUE: Catalogue[Command] = Catalogue(__name__, "COMMAND", "command")


def build_app() -> typer.Typer:
    """Return the application of all commands."""
    app = typer.Typer(
        name="deploykit",
        help="Take a trained DenseNet from checkpoint to verified, measured engines.",
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Print the version and exit.", is_eager=True, callback=_version
        ),
    ) -> None:
        """Declare the options that stand before a command."""

    commands = [(name, CATALOGUE.get(name)) for name in CATALOGUE.names()]
    for name, command in sorted(commands, key=lambda pair: pair[1].order):
        if command.parts:
            app.add_typer(_group(command), name=name)
        else:
            _add(app, name, command.call, command.example)
    return app


def _add(app: typer.Typer, name: str, call: Callable[..., Any], example: str) -> None:
    add = app.command(name, cls=HelpfulCommand, epilog=example or None, context_settings=_SETTINGS)
    add(expand_groups(_guarded(call)))


def _group(command: Command) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, rich_markup_mode=None, context_settings=_SETTINGS)
    group.callback()(command.call)
    for name, call in command.parts.items():
        _add(group, name, call, command.examples.get(name, ""))
    return group


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let an interrupt and a closed pipe pass typer, which would end them with exit codes of its own, to `main`."""

    @functools.wraps(call)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            return call(*arguments, **options)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise _Ended(error) from error

    return guarded


class _Ended(Exception):  # noqa: N818  # it carries another exception past typer
    """The command was ended from outside."""

    def __init__(self, by: BaseException) -> None:
        super().__init__()
        self.by = by


def _version(requested: bool) -> None:
    if requested:
        from deploy_kit import __version__

        typer.echo(f"deploykit {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and end the process with its exit code."""
    try:
        _run()
    finally:
        store = sys.modules.get("deploy_kit.store")  # a command that opened none has not loaded it
        if store is not None:
            store.remove_empty()


def _run() -> None:
    signal.signal(signal.SIGTERM, _terminated)
    try:
        build_app()(standalone_mode=True)
    except DeployKitError as error:
        _print_error(error)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = lazy.optional(error)
        if package is None:
            _bug()
        _print_error(lazy.missing_error(package, by="this command"))
        sys.exit(MissingPackageError.exit_code)
    except KeyboardInterrupt:  # while the commands are imported
        _interrupted()
    except _Ended as ended:
        if isinstance(ended.by, KeyboardInterrupt):
            _interrupted()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody reads on: what Python would still flush goes nowhere
        sys.exit(141)
    except Exception:  # noqa: BLE001  # the one place that turns a bug into exit code 70
        _bug()


def _bug() -> NoReturn:
    import traceback

    traceback.print_exc()
    sys.stderr.write("error: this is a bug in deploykit; please report the trace above\n")
    sys.exit(70)


def _terminated(number: int, frame: object) -> None:
    """Exit as after an interrupt, so that temporary folders are removed and workers end, with the shell's exit code."""
    raise SystemExit(128 + number)


def _interrupted() -> NoReturn:
    sys.stderr.write("\ninterrupted: nothing is half-written, what was finished is kept\n")
    sys.exit(130)


def _print_error(error: DeployKitError) -> None:
    sys.stderr.write(f"error: {error}\n")
    if error.hint:
        sys.stderr.write(f"  fix: {error.hint}\n")
