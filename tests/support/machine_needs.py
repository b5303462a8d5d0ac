"""What tests need of the machine. Where it is absent they are skipped, and the run ends by naming it. A plugin.

A skip names an absence if its reason is a command that adds what is absent, alone or behind its name:

    needs an SSH server: apt-get install openssh-server openssh-client
    pip install 'deploykit[nncf]'

For each such reason the run ends with a line of its own. With ``--complete`` these tests fail instead, but for those
that need an NVIDIA GPU or full TensorRT, which works only beside one: no machine of CI has them.
"""

import re
import shutil
from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from typing import Any

import pytest

from deploy_kit.base.lazy import install_line
from deploy_kit.engines import _cuda

_FIXTURE_OF_MARKER = {"edge": "edge_root", "ssh": "one_server"}
_NEED = re.compile(r"needs (?P<thing>.+?): (?P<remedy>.+)|(?P<install>pip install .+)", re.DOTALL)
_GPU = ("an NVIDIA GPU", "run scripts/gpu_check where there is one")
_TENSORRT = install_line("tensorrt")
_PREFIX = "Skipped: "

Need = tuple[str, str]  # what is needed, and what adds it


def why_missing(thing: str, programs: Iterable[str], packages: str) -> str:
    """Return the reason to skip a test where one of these programs is not installed; empty where all are.

    Args:
        thing: What the programs make, e.g. ``an SSH server``.
        programs: Names or paths.
        packages: Debian packages that have the programs.
    """
    absent = any(shutil.which(program) is None for program in programs)
    return f"needs {thing}: apt-get install {packages}" if absent else ""


def need_of(reason: str, keywords: Iterable[str] = ()) -> Need | None:
    """Return what a test that was skipped for this reason needs of the machine; None if it is skipped by design."""
    if "gpu" in keywords and _cuda.why_no_cuda():
        return _GPU
    if (match := _NEED.fullmatch(reason)) is None:
        return None
    return match["thing"] or "a package", match["remedy"] or match["install"]


def needs_hardware(need: Need) -> bool:
    """Return whether no command alone adds it, so that ``--complete`` cannot ask for it."""
    return need == _GPU or need[1] == _TENSORRT


def lines(needs: Mapping[Need, int]) -> list[str]:
    """Write one line for each thing that is absent."""
    return [
        f"NOT TESTED: {n} test{'s need' if n > 1 else ' needs'} {thing}: {remedy}"
        for (thing, remedy), n in sorted(needs.items())
    ]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--complete", action="store_true", help="fail the tests that this machine lacks something for, except for a GPU"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_LeftOut(config), "left_out")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for marker, fixture in _FIXTURE_OF_MARKER.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix(_PREFIX)
        need = need_of(reason, report.keywords)
        if need:
            report.need = list(need)  # pytest-xdist hands a report's attributes on as JSON
            if item.config.getoption("--complete") and not needs_hardware(need):
                report.outcome, report.longrepr = "failed", reason
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around all others: its lines come last
def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> Generator[None, None, None]:
    yield
    reports = (report for kind in ("skipped", "failed", "error") for report in terminalreporter.getreports(kind))
    needs = Counter(tuple(report.need) for report in reports if hasattr(report, "need"))
    for line in lines(needs):
        terminalreporter.write_line(line, yellow=True, bold=True)
    left_out: _LeftOut = config.pluginmanager.getplugin("left_out")
    if left_out.count:
        chosen = config.option.markexpr
        terminalreporter.write_line(
            f"LEFT OUT: {left_out.count} tests by -m '{chosen}'; make test runs all", yellow=True, bold=True
        )


class _LeftOut:
    """Counts the tests that ``-m`` leaves out; with pytest-xdist every worker counts all of them."""

    def __init__(self, config: pytest.Config) -> None:
        self.config, self.count = config, 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        if self.config.option.markexpr and not self.config.option.keyword:
            self.count += len(items)

    def pytest_sessionfinish(self) -> None:
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["left_out"] = self.count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        self.count = getattr(node, "workeroutput", {}).get("left_out", self.count)
