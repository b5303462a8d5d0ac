"""Every rule: a graph where it applies, one where it does not, and words with a way out."""

import re
from pathlib import Path

import onnx_ir as ir
import pytest
from lint_cases import CASES
from lint_graphs import Case

from deploy_kit.graph import lint, onnx_file
from deploy_kit.graph.lint import LintFinding

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
every_rule = pytest.mark.parametrize("name", lint.CATALOGUE.names())
# No graph of text can hold what they are about: such a rule has tests of its own, in ``test_<rule>.py``.
BY_HAND = {file.stem.removeprefix("test_") for file in Path(__file__).parent.glob("test_*.py")}


def findings(case: Case) -> tuple[LintFinding, ...]:
    """Apply all rules of the case's target, as to a file."""
    return lint.lint_model(onnx_file.reread(ir.serde.deserialize_model(case.proto())), lint.parse_target(case.target))


@every_case
def test_the_rule_finds_what_it_must(case: Case) -> None:
    found = {finding.level for finding in findings(case) if finding.code == case.rule.upper()}

    assert found == ({case.level} if case.level else set())


@every_rule
def test_every_rule_has_a_graph_for_and_one_against_it(name: str) -> None:
    levels = {case.level for case in CASES if case.rule == name}

    assert name in BY_HAND or ("" in levels and lint.CATALOGUE.get(name).level in levels)


@every_rule
def test_every_rule_says_in_words_what_it_is_and_where_from(name: str) -> None:
    rule = lint.CATALOGUE.get(name)

    assert all((rule.title, rule.cure, rule.source, rule.targets))
    assert not rule.cure.endswith(".")


@pytest.mark.parametrize("case", [case for case in CASES if case.level], ids=lambda case: case.id)
def test_every_message_is_one_lower_case_line_without_an_end(case: Case) -> None:
    found = next(finding for finding in findings(case) if finding.code == case.rule.upper())

    assert re.fullmatch(r"[^\n]+[^.!\n]", found.text)
    assert found.cure


@pytest.mark.parametrize("case", [case for case in CASES if case.words], ids=lambda case: case.id)
def test_the_message_says_what_was_found(case: Case) -> None:
    found = next(finding for finding in findings(case) if finding.code == case.rule.upper())

    assert case.words in found.text


@every_rule
def test_every_code_has_its_message_read(name: str) -> None:
    assert name in BY_HAND or any(case.words for case in CASES if case.rule == name and case.level)


def test_a_finding_in_one_line_names_code_and_node() -> None:
    found = LintFinding(code="TRT001", level="error", node="conv1", text="a zero point", cure="none")

    assert str(found) == "TRT001: node 'conv1': a zero point"
