"""Markup: every text is escaped once, and what is not seen is written as a code."""

import html

import pytest

from deploy_kit.base.markup import Markup, element, markup
from deploy_kit.base.plain_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[2Jb", "a\\u001b[2Jb"),
        ("\u2066x\u2069", "\\u2066x\\u2069"),
        ("\udcff.png", "\\udcff.png"),
        ("شعار é", "شعار é"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_characters_that_are_not_seen_are_written_as_codes(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert html.unescape(markup(text)) == shown
    markup(text).encode()


def test_texts_are_escaped_once_and_markup_is_not() -> None:
    inner = element("b", 'a < b & "c"')

    assert inner == "<b>a &lt; b &amp; &quot;c&quot;</b>"
    assert element("p", inner, ["x>", (inner, None)]) == f"<p>{inner}x&gt;{inner}</p>"


def test_attributes_are_escaped_and_left_out_where_they_say_nothing() -> None:
    drawn = element(
        "path", d="M0,0", class_="mark", aria_label="\">'<", hidden=True, id=None, open=False, data_n=3, x=1.23456
    )

    assert drawn == ('<path d="M0,0" class="mark" aria-label="&quot;&gt;&#x27;&lt;" hidden data-n="3" x="1.23"></path>')


def test_elements_without_content_are_not_closed() -> None:
    assert element("br") == "<br>"
    assert isinstance(element("img", src="x"), Markup)
