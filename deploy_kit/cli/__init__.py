"""The command line: a thin shell that parses, calls and renders. Exit codes are given here and nowhere else.

    0 yes · 1 the answer is no · 2 the request is wrong · 3 a package is missing · 4 the device · 5 a stage failed ·
    6 undecided: the measurement is not valid, or the images do not decide · 70 a bug, with its trace · 129 hung up ·
    130 interrupted · 141 nobody reads standard output any more · 143 terminated

A command is a file of this folder with ``COMMAND``; it imports what it needs when it is called.
"""

import errno
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import typer
import typer.main

from deploy_kit.base import signals, standard_streams
from deploy_kit.base.catalogue import Catalogue
from deploy_kit.base.errors import DeployKitError, OutputError, RequestError, StageError
from deploy_kit.base.plain_text import printable
from deploy_kit.cli._help import HelpfulCommand, HelpfulGroup
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


# What a machine that is full, or that forbids, answers: no fault of the program, wherever it is met.
_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
    | {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}
)
# What it says of a path that can be no file's, or that leads through one: the request is wrong, wherever it is met.
_NO_PATHS = frozenset({errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR})
_OPTIONS = {"macs": "--slim", "distill_minutes": "--minutes"}  # of a recipe's key, where it is called otherwise
_ENDED = {129: "hung up", 130: "interrupted", 143: "terminated"}
CATALOGUE: Catalogue[Command] = Catalogue(__name__, "COMMAND", "command", closed=True)


def build_app() -> typer.Typer:
    """Return the application of all commands."""
    app = typer.Typer(
        name="deploykit",
        help="Take a trained DenseNet from checkpoint to verified, measured engines.",
        no_args_is_help=True,
        cls=_Commands,
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

    return app


class _Commands(HelpfulGroup):
    """The commands, each imported when it is named: to build all of them takes longer than most take to run."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = cast("MutableMapping[str, Any]", _Built())

    def helps(self) -> list[tuple[str, str]]:
        """Return the name and the help of each command, without reading its options."""
        return [(name, inspect.getdoc(CATALOGUE.get(name).call) or "") for name in self.commands]


class _Built(Mapping[str, Any]):
    """Commands as typer builds them, by name, in the order of the help."""

    def __getitem__(self, name: str) -> Any:
        if name not in CATALOGUE.names():
            raise KeyError(name)
        command = CATALOGUE.get(name)
        built = typer.main.get_command(_group(command) if command.parts else _single(name, command))
        built.name = name
        return built

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(CATALOGUE.names(), key=lambda name: CATALOGUE.get(name).order))

    def __len__(self) -> int:
        return len(CATALOGUE.names())


def _single(name: str, command: Command) -> typer.Typer:
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    _add(app, name, command.call, command.example)
    return app


def _group(command: Command) -> typer.Typer:
    group = typer.Typer(
        cls=HelpfulGroup,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings=_SETTINGS,
    )
    group.callback()(command.call)
    for name, call in command.parts.items():
        _add(group, name, call, command.examples.get(name, ""))
    return group


def _add(app: typer.Typer, name: str, call: Callable[..., Any], example: str) -> None:
    add = app.command(name, cls=HelpfulCommand, epilog=example or None, context_settings=_SETTINGS)
    add(expand_groups(_guarded(call)))


def _guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let what typer would end with exit codes of its own (an interrupt, a broken pipe, an EOFError) pass to `main`."""

    @functools.wraps(call)
    def guarded(*arguments: Any, **options: Any) -> Any:
        try:
            Path.cwd()
        except OSError as error:  # what libraries say of that is no help: MKL ends the process
            raise RequestError(
                "the working folder does not exist any more", hint="go to one that does: cd ~"
            ) from error
        try:
            return call(*arguments, **options)
        except (KeyboardInterrupt, OSError, EOFError) as error:
            raise _Ended(error) from error

    return guarded


class _Ended(Exception):  # noqa: N818  # it carries another exception past typer
    """The command was ended by an exception that typer has a meaning of its own for."""

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
    signals.watch_signals()
    standard_streams.prepare_streams()
    try:
        _run()
    finally:
        store = sys.modules.get("deploy_kit.store")  # a command that opened none has not loaded it
        if store is not None:
            store.remove_empty()


def _run() -> None:
    try:
        try:
            build_app()(standalone_mode=True)
        finally:
            sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001  # the one place that turns everything into an exit code
        code = signals.signal_exit_code() or _exit_code(error.by if isinstance(error, _Ended) else error)
        if code in _ENDED:
            sys.stderr.write(f"\n{_ENDED[code]}: nothing is half-written, what was finished is kept\n")
        sys.exit(code)


def _exit_code(error: BaseException) -> int:
    """Write on standard error what ended the command, and return its exit code."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, standard_streams.ReaderGoneError | BrokenPipeError):
        standard_streams.discard_output()
        return 141
    if isinstance(error, KeyboardInterrupt):
        return 130
    if isinstance(error, OutputError):
        standard_streams.discard_output()
    if isinstance(error, ModuleNotFoundError):
        from deploy_kit.base import lazy

        package = lazy.optional(error)
        error = error if package is None else lazy.missing_error(package, by="this command")
    if isinstance(error, DeployKitError):
        _print_error(error)
        return error.exit_code
    if isinstance(error, RuntimeError) and "can't allocate memory" in str(error):  # torch's own of it
        error = MemoryError()
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _REFUSALS | _NO_PATHS):
        refused = _refused(error)
        _print_error(refused)
        return refused.exit_code
    import traceback

    traceback.print_exception(error)
    sys.stderr.write("error: this is a bug in deploykit; please report the trace above\n")
    return 70


def _as_typed(text: str) -> str:
    """Name the option of the command line where a recipe's key is at fault that it gave the value of."""
    key = re.match(r"recipe\.\w+\.(\w+)", text)
    if key is None:
        return text
    plain, bare = (f"--{name.replace('_', '-')}" for name in (key[1], re.sub(r"_(s|ms|mb|mj|w)$", "", key[1])))
    typed = {word.partition("=")[0] for word in sys.argv}
    option = next((one for one in (plain, bare, _OPTIONS.get(key[1])) if one in typed), None)
    return f"{option}{text[key.end() :]}" if option else text


def _refused(error: BaseException) -> DeployKitError:
    """Return the error for what the operating system refused, wherever it was asked for."""
    if isinstance(error, MemoryError):
        return StageError("no memory left", hint="close other programs, or give the container more memory")
    assert isinstance(error, OSError)
    where = f"{error.filename}: " if error.filename else ""
    if error.errno in _NO_PATHS:
        return RequestError(f"{where}{error.strerror}", hint="give the path of a file or folder that is there")
    return StageError(
        f"{where}{error.strerror}", hint="see what is full or forbidden: df -h . /tmp; ls -ld . /tmp; ulimit -a"
    )


def _print_error(error: DeployKitError) -> None:
    # A further line is indented: a name with a line feed in it must not look like a line of this program.
    lines = printable(f"error: {_as_typed(str(error))}").split("\n")
    sys.stderr.write("\n       ".join(lines) + "\n")
    if error.hint:
        sys.stderr.write("\n       ".join(printable(f"  fix: {error.hint}").split("\n")) + "\n")
