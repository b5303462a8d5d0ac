"""The page in a real browser: no network, no complaint, nothing beside the screen, in light, dark and on paper."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from page_records import CLASSES, page_report
from report_records import everything

from deploy_kit.analysis import compare
from deploy_kit.records.measurements import Bench, Measurement
from deploy_kit.records.results import Report
from deploy_kit.stages.report import page
from deploy_kit.stages.report.page.comparison import RunDrawn, comparison_page

if TYPE_CHECKING:
    from browser import Browser

pytest_plugins = ["browser"]
pytestmark = pytest.mark.slow  # the browser takes seconds to start

HOSTILE = "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 2'>\u202egnp" + "w" * 300
_BESIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_BEYOND = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll') && !e.closest('svg')
    && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(page_report(command="deploykit run reports/some/recipe.yaml"), tmp_path_factory.mktemp("page"))


def written(of: Report, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(page.page(of), encoding="utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1600])
def test_a_screen_of_any_width_shows_all_of_it(browser: "Browser", file: Path, width: int, dark: bool) -> None:
    browser.open(file, width=width, dark=dark)

    assert browser.complaints() == []
    assert browser.requests() == []
    assert browser.value(_BESIDE) == 0
    assert browser.value(_BEYOND) == []


@pytest.mark.parametrize("dark", [False, True])
def test_texts_stand_out_from_what_is_behind_them(browser: "Browser", file: Path, dark: bool) -> None:
    browser.open(file, dark=dark)

    # Contrast of WCAG 2.2, section 1.4.3, of every text against the nearest background that is painted.
    worst = browser.value("""(() => {
        const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
        const light = (text) => rgb(text).slice(0, 3).map((v) => v / 255)
            .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (e) => { for (; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (rgb(color)[3] !== 0) return color; } return 'rgb(255, 255, 255)'; };
        let worst = 99;
        for (const e of document.querySelectorAll('body *')) {
            if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
            if (['SCRIPT', 'STYLE'].includes(e.tagName)) continue;
            const style = getComputedStyle(e), ink = e.tagName === 'text' ? style.fill : style.color;
            const [a, b] = [light(ink), light(behind(e))].sort((x, y) => y - x);
            worst = Math.min(worst, (a + 0.05) / (b + 0.05));
        }
        return worst;
    })()""")

    assert worst >= 4.5


def test_the_first_screen_has_the_verdict_and_the_facts(browser: "Browser", file: Path) -> None:
    browser.open(file, width=1600, height=900)

    seen = browser.value("""[...document.querySelectorAll('header .chip, .engines tbody tr, .facts div')]
        .filter(e => e.getBoundingClientRect().bottom <= innerHeight).map(e => e.textContent)""")
    text = "\n".join(seen)

    for part in ("rejected", "int8 · openvino", "sha256 int8", "checkpoint sha256", "preprocessing", "checked on",
                 "limits in force", "machine", "deploykit run reports/some/recipe.yaml"):  # fmt: skip
        assert part in text


def test_arrow_keys_read_the_marks_of_a_picture(browser: "Browser", file: Path) -> None:
    browser.open(file)
    browser.value("document.querySelector('#tradeoff svg').focus()")

    browser.press("ArrowRight")
    first = browser.value("document.querySelector('#tip').textContent")
    browser.press("ArrowRight")
    second = browser.value("document.querySelector('#tip').textContent")
    browser.press("Escape")

    assert "ms" in first and "points" in first and second != first
    assert browser.value("document.querySelector('#tip').hidden") is True


def test_a_table_is_sorted_by_its_heading_and_back(browser: "Browser", file: Path) -> None:
    browser.open(file)
    sort = "[...document.querySelectorAll('.engines thead button')].find(b => b.textContent === 'p50').click()"
    column = "[...document.querySelectorAll('.engines td[data-heading=p50]')].map(e => parseFloat(e.textContent))"

    browser.value(sort)
    upward = browser.value(column)
    browser.value(sort)

    assert upward == sorted(upward)
    assert browser.value(column) == upward[::-1]
    assert browser.value("document.querySelectorAll('.engines [aria-sort=descending]').length") == 1


def test_a_screen_reader_finds_pictures_and_tables_by_name(browser: "Browser", file: Path) -> None:
    browser.open(file)

    names = browser.accessible_names("image")
    headings = browser.accessible_names("heading")

    assert any(name.startswith("int8 · openvino:") for name in names) and all(names)
    assert {"Engines", "What was proved", "Accuracy against latency", "Roofline"} <= set(headings)
    assert browser.value("document.querySelectorAll('th:not([scope])').length") == 0


def test_hostile_names_stay_texts_and_move_nothing(browser: "Browser", tmp_path: Path) -> None:
    hostile = page_report(classes=(HOSTILE, *CLASSES[1:]), file=HOSTILE, recipe=HOSTILE, command=HOSTILE)

    browser.open(written(hostile, tmp_path), width=360)

    assert browser.value("window.ran") is None
    assert browser.complaints() == [] and browser.requests() == []
    assert browser.value(_BESIDE) == 0
    assert browser.value("document.querySelectorAll('script').length") == 1


def test_a_report_with_gaps_draws_without_a_complaint(browser: "Browser", tmp_path: Path) -> None:
    browser.open(written(everything(), tmp_path), width=768)

    assert browser.complaints() == []
    assert browser.value(_BESIDE) == 0


def test_paper_has_all_sections_opened_and_no_dark_ground(browser: "Browser", file: Path) -> None:
    browser.open(file, dark=True, media="print", width=794)

    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    opened = "[...document.querySelectorAll('.section table')].every(e => e.getBoundingClientRect().height > 0)"
    assert browser.value(opened) is True
    printed = browser.pdf()
    assert printed.startswith(b"%PDF-") and len(re.findall(rb"/Type\s*/Page\b", printed)) >= 3


def test_a_page_is_small_enough_to_be_drawn_at_once(browser: "Browser", file: Path) -> None:
    browser.open(file)

    assert browser.value("document.querySelectorAll('*').length") < 5000
    assert file.stat().st_size < 1_000_000


@pytest.mark.parametrize(("width", "dark"), [(360, False), (768, True), (1600, False)])
def test_two_runs_over_one_another_fit_a_screen(browser: "Browser", tmp_path: Path, width: int, dark: bool) -> None:
    rows = page_report().rows
    timed = tuple(row.measurement for row in rows if isinstance(row.measurement, Measurement))
    run = RunDrawn(name=HOSTILE, measurements=timed, rows=rows)
    compared = compare.compare_runs(Bench(measurements=timed), Bench(measurements=timed))
    (tmp_path / "both.html").write_text(comparison_page(compared, run, run), encoding="utf-8")

    browser.open(tmp_path / "both.html", width=width, dark=dark)

    assert browser.complaints() == [] and browser.requests() == []
    assert browser.value(_BESIDE) == 0 and browser.value(_BEYOND) == []
