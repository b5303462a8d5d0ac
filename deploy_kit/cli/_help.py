"""A command's help in plain text: options under the heading of their group, defaults, and an example to copy."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

HEADINGS = "option_headings"
"""Attribute of a command's function: name of an option → heading of its group."""
_LAST = "Output"
_UsageError: Any = typer.BadParameter.__bases__[0]  # typer exports it under no name


class HelpfulCommand(TyperCommand):
    """A command whose help has groups of options; its epilog is an example, printed as it is."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the options; of one that this command lacks, say which commands have it."""
        try:
            return super().parse_args(ctx, args)
        except _UsageError as error:
            holders = _commands_with(getattr(error, "option_name", ""), ctx.find_root())
            if holders:
                error.message += f"; {', '.join(holders)} {'has' if len(holders) == 1 else 'have'} it"
                error.possibilities = None
            raise

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by group: the command's own first, those of the output and the help last."""
        headings: dict[str, str] = getattr(self.callback, HEADINGS, {})
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            own = "Arguments" if parameter.param_type_name == "argument" else "Options"
            name = _LAST if parameter.name == "help" else headings.get(str(parameter.name), own)
            groups.setdefault(name, []).append(record)
        last = groups.pop(_LAST, [])
        for heading, rows in {**groups, _LAST: last}.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the example in one piece, so that it can be copied."""
        if self.epilog:
            formatter.write_paragraph()
            formatter.write(f"Example:\n  {self.epilog}\n")


class HelpfulGroup(TyperGroup):
    """A group of commands whose help has a whole sentence for each."""

    def helps(self) -> list[tuple[str, str]]:
        """Return the name and the help of each command."""
        return [(name, command.help or "") for name, command in self.commands.items()]

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands by the first paragraph of their help."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, " ".join(text.partition("\n\n")[0].split())) for name, text in self.helps()])


def _commands_with(option: str, root: Any) -> list[str]:
    """Name the commands that have an option."""
    commands = getattr(root.command, "commands", {})
    return [name for name in commands if any(option in one.opts for one in commands[name].get_params(root))]


def with_headings(function: Callable[..., None], headings: dict[str, str]) -> Callable[..., None]:
    """Note the headings of a function's options on it, for `HelpfulCommand`."""
    setattr(function, HEADINGS, headings)
    return function
