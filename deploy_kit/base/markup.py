"""HTML and SVG as text that is escaped once, in one place: whatever is not `Markup` yet becomes text on the page."""

import html
from collections.abc import Iterable

from deploy_kit.base.plain_text import printable

_EMPTY_ELEMENTS = frozenset({"br", "img", "meta"})


class Markup(str):
    """Text that is markup already, made by the functions of this module; every other text is escaped by them."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def markup(child: Child) -> Markup:
    """Turn a text, markup or any nesting of them into markup: texts are escaped, None is left out."""
    if child is None:
        return Markup()
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return Markup(html.escape(printable(child)))
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
