"""Names from files in report.md: what is a link, a picture or markup elsewhere is text there."""

import pytest
from markdown_it import MarkdownIt

from deploy_kit.stages.report.markdown import table

HOSTILE = [
    "![x](http://a.example/t.png)", "[a](javascript:b)", "![x][y]", "<script>a</script>", "<img src=x>", "a\x1b[31mb",
    "a|b", "a\n## b",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_in_its_cell(name: str) -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse("\n".join(table(("name",), [(name,)])))

    cell = tokens[[token.type for token in tokens].index("td_open") + 1]
    assert {token.type for token in cell.children or []} <= {"text", "text_special"}
    assert "\x1b" not in cell.content
    assert "heading_open" not in {token.type for token in tokens}
