"""Sections and tables in Markdown."""

import re
from collections.abc import Sequence

from deploy_kit.base.plain_text import printable
from deploy_kit.stages.report.document import Section, Table

# A link in a name would be followed, and a picture asked for where the report is read.
_LINK = re.compile(r"(\]|!)([(\[])")
_TAG = re.compile(r"<(?=[a-zA-Z/!?])")


def table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return a table, one line per row; line breaks and bars within a cell are replaced, tags are made text."""
    lines = [headings, tuple("---" for _ in headings), *rows]
    return ["| " + " | ".join(_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines]


def section(part: Section) -> list[str]:
    """Return the lines of a section: its heading, then each block, with an empty line behind every one."""
    lines = [f"## {_line(part.title)}", ""]
    for block in part.blocks:
        if not block:
            continue
        if isinstance(block, Table):
            lines += table(block.headings, block.rows)
        elif isinstance(block, str):
            lines.append(_line(block))
        else:
            lines += [f"- {_line(remark)}" for remark in block]
        lines.append("")
    return lines


def _line(text: str) -> str:
    return _LINK.sub(r"\1\\\2", _TAG.sub("&lt;", printable(" ".join(text.split()))))
