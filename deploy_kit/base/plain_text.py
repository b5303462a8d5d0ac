"""Text from files and machines, made safe to show: a name must neither steer a terminal nor forge a line or markup."""

import os
import re
import shlex
from typing import Any

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed, terminal escapes among them
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # what turns, breaks or hides the text around it
    "\ud800-\udfff\ufffe\uffff]"  # bytes of a file name that are no UTF-8, and what no document may hold
)
_SHOWN = 200


def printable(text: str) -> str:
    r"""Write control characters as ``\u001b``, which JSON reads as the same character; line feeds and tabs stay."""
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    r"""Make a text printable on one line: line feeds and tabs are written as ``\n`` and ``\t``."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def shell_word(path: str | os.PathLike[str]) -> str:
    r"""Write a path as one word of a shell's line to copy: it may hold blanks or commands, or begin as options do.

    Bytes that cannot be shown are written as bash, zsh and ksh read them: ``$'caf\351'``.
    """
    text = os.fspath(path)
    text = f"./{text}" if text.startswith("-") else text
    if text.isprintable():
        return shlex.quote(text)
    plain = (chr(byte) if 32 <= byte < 127 and byte not in b"'\\" else f"\\{byte:03o}" for byte in os.fsencode(text))
    return f"$'{''.join(plain)}'"


def shown(value: Any) -> str:
    """Return a value as Python writes it, shortened to 200 characters and on one line, for a message."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of more than 4,300 digits; a list of lists without end
        text = f"a {type(value).__name__} too large to print"
    text = one_line(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
