"""Option groups: options that several commands share, declared once as the fields of a frozen dataclass.

A command names a group as the annotation of a parameter. It offers the group's options on the command line, and is
called with the record:

    def simplify(*, step: Annotated[StepOptions, Only("model", "recipe", "store")], output: OutputOptions) -> None: ...
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from inspect import Parameter
from typing import Any, get_args

from deploy_kit.cli._help import with_headings

_OWN = frozenset({"model"})  # arguments have a heading of their own


class Only:
    """Marks the options of a group that a command offers, in the order of its help; the others keep their defaults."""

    def __init__(self, *names: str) -> None:
        """Offer the fields called `names`."""
        self.names = names


def expand_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command as typer reads it: an option group's fields stand in place of its parameter.

    Args:
        command: Function whose parameters are options, or records of them.

    Raises:
        KeyError: `Only` names a field that its group does not have.
        ValueError: Two parameters have one name.
    """
    parameters: list[Parameter] = []
    headings: dict[str, str] = {}
    groups: dict[str, tuple[type[Any], tuple[str, ...]]] = {}
    for parameter in inspect.signature(command).parameters.values():
        group = _group(parameter.annotation)
        if group is None:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))
        else:
            groups[parameter.name] = group
            options = _options(*group)
            parameters += options
            heading = getattr(group[0], "HEADING", None)
            headings |= {option.name: heading for option in options if heading and option.name not in _OWN}

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        records = {
            parameter: record(**{name: values.pop(name) for name in names})
            for parameter, (record, names) in groups.items()
        }
        command(**values, **records)

    # typer reads both: the signature for order and defaults, the annotations for types.
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_headings(expanded, headings)


def _group(annotation: Any) -> tuple[type[Any], tuple[str, ...]] | None:
    """Return the record an annotation names and the fields to offer; None where it is an option of its own."""
    record, *marks = get_args(annotation) or (annotation,)
    if not (isinstance(record, type) and is_dataclass(record)):
        return None
    only = next((mark.names for mark in marks if isinstance(mark, Only)), None)
    return record, only if only is not None else tuple(field.name for field in fields(record))


def _options(record: type[Any], names: tuple[str, ...]) -> list[Parameter]:
    declared = {field.name: field for field in fields(record)}
    return [
        Parameter(name, Parameter.KEYWORD_ONLY, default=declared[name].default, annotation=declared[name].type)
        for name in names
    ]
