"""A page as a parser finds it: elements, texts, and the numbers of its marks."""

from html.parser import HTMLParser

_EMPTY = {"meta", "img", "br"}


class Page(HTMLParser):
    """Elements of a page with their attributes and texts; refuses one that is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found = list[tuple[str, dict[str, str | None]]]()
        self.texts = list[str]()
        self.open = list[str]()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in _EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def marks(self, figure: str) -> list[dict[str, str]]:
        """Return the ``data-`` attributes of the marks of one figure, without their prefix."""
        inside, marks = False, []
        for tag, attributes in self.found:
            if tag == "figure":
                inside = attributes["id"] == figure
            elif inside and "mark" in (attributes.get("class") or "").split():
                marks.append({k.removeprefix("data-"): v or "" for k, v in attributes.items() if k.startswith("data-")})
        return marks
