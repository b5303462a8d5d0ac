"""The documentation site: it builds without a warning, the README's links work on it, and the reference is complete."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import deploy_kit
from deploy_kit.base.lazy import present

ROOT = Path(__file__).parents[2]
NEEDS = "needs the documentation's packages: pip install --group docs"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (present("mkdocs") and present("mkdocstrings")), reason=NEEDS),
    pytest.mark.xdist_group("site"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "WARNING" not in ended.stderr
    return folder


def links(page: Path) -> set[str]:
    """Return where the links of a page's own text lead, without those to other sites and within the page."""
    article = page.read_text(encoding="utf-8").split("<article")[1].split("</article>")[0]
    found = re.findall(r'href="([^"#]+)', article)
    return {link for link in found if not link.startswith(("http", "mailto"))}


def test_every_link_of_every_page_leads_somewhere(site: Path) -> None:
    pages = sorted(path for path in site.glob("*.html") if path.name != "404.html")

    assert {
        f"{page.name}: {link}" for page in pages for link in links(page) if not (page.parent / link).exists()
    } == set()


def test_the_readme_is_the_first_page_and_leads_to_the_others(site: Path) -> None:
    assert {"int8.html", "python.html", "contributing.html", "recipes/densenet121.yaml"} <= links(site / "index.html")


def test_the_reference_has_every_name(site: Path) -> None:
    text = (site / "reference.html").read_text(encoding="utf-8")
    names = set(deploy_kit.__all__) - {"__version__", "ProgressCallback"}  # the latter is a type, told in words

    assert {name for name in names if f'id="deploy_kit.{name}"' not in text} == set()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")

    assert re.findall(r'(?:src|stylesheet" href)="http', text) == []
