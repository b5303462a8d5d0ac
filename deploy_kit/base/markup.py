"""HTML and SVG as text that is escaped once, in one place: whatever is not `Markup` yet becomes text on the page."""

import html
import re
from collections.abc import Iterable

_UNSEEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters, terminal escapes among them
    "\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"  # what turns or hides the text around it
    "\ud800-\udfff\ufffe\uffff]"  # bytes of a file name that are no UTF-8, and what no document may hold
)
_EMPTY_ELEMENTS = frozenset({"br", "img", "meta"})


class Markup(str):
    """Text that is markup already, made by the functions of this module; every other text is escaped by them."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def visible(text: str) -> str:
    r"""Write characters that are not seen, or that turn the text around them, as their code, e.g. ``\u202e``."""
    return _UNSEEN.sub(
        lambda found: f"\\u{ord(found[0]):04x}" if found[0] > "\xff" else f"\\x{ord(found[0]):02x}", text
    )


def markup(child: Child) -> Markup:
    """Turn a text, markup or any nesting of them into markup: texts are escaped, None is left out."""
    if child is None:
        return Markup()
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return Markup(html.escape(visible(child)))
    return Markup("".join(map(markup, child)))


def element(name: str, *children: Child, **attributes: object) -> Markup:
    """Write one element.

    Args:
        name: Name of the element.
        children: Texts, which are escaped, and markup.
        attributes: Attributes, escaped; ``_`` in a name becomes ``-``, a last one is dropped (``class_``). None and
            False leave an attribute out; True writes its name alone; floats are rounded to a hundredth.
    """
    words = [name]
    for key, value in attributes.items():
        label = key.rstrip("_").replace("_", "-")
        if value is True:
            words.append(label)
        elif value is not None and value is not False:
            words.append(f'{label}="{markup(_number(value) if isinstance(value, float) else str(value))}"')
    inside = markup(children)
    if name in _EMPTY_ELEMENTS:
        return Markup(f"<{' '.join(words)}>")
    return Markup(f"<{' '.join(words)}>{inside}</{name}>")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
