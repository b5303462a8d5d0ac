"""Every rule: a graph where it applies, one where it does not, and words with a way out."""

import re

import numpy as np
import onnx_ir as ir
import pytest
from lint_graphs import OTHERS, TENSORRT, Case

from deploy_kit.graph import lint, onnx_file
from deploy_kit.graph.lint import LintFinding

every_case = pytest.mark.parametrize("case", [*TENSORRT, *OTHERS], ids=lambda case: case.id)
every_rule = pytest.mark.parametrize("name", lint.CATALOGUE.names())
BY_HAND = {"onnx001"}  # two gibibytes are in no graph of text


def findings(case: Case) -> tuple[LintFinding, ...]:
    """Apply all rules of the case's target, as to a file."""
    return lint.lint_model(onnx_file.reread(ir.serde.deserialize_model(case.proto())), lint.parse_target(case.target))


@every_case
def test_the_rule_finds_what_it_must(case: Case) -> None:
    found = {finding.level for finding in findings(case) if finding.code == case.rule.upper()}

    assert found == ({case.level} if case.level else set())


@every_rule
def test_every_rule_has_a_graph_for_and_one_against_it(name: str) -> None:
    levels = {case.level for case in (*TENSORRT, *OTHERS) if case.rule == name}

    assert name in BY_HAND or ("" in levels and lint.CATALOGUE.get(name).level in levels)


@every_rule
def test_every_rule_says_in_words_what_it_is_and_where_from(name: str) -> None:
    rule = lint.CATALOGUE.get(name)

    assert all((rule.title, rule.cure, rule.source, rule.targets))
    assert not rule.cure.endswith(".")


@pytest.mark.parametrize("case", [case for case in (*TENSORRT, *OTHERS) if case.level], ids=lambda case: case.id)
def test_every_message_is_one_lower_case_line_without_an_end(case: Case) -> None:
    found = next(finding for finding in findings(case) if finding.code == case.rule.upper())

    assert re.fullmatch(r"[^\n]+[^.!\n]", found.text)
    assert found.cure


WORDS = {
    "int8 around 5": "QuantizeLinear with a zero point other than 0",
    "int32 bias": "DequantizeLinear of int32: a quantized bias",
    "int8 gamma": "quantized BatchNormalization parameters lose accuracy",
    "to a batch of 1": "Reshape to a batch of 1, and the input's batch is dynamic",
    "uint8 around 0": "QuantizeLinear to uint8, and TensorRT documents int8",
    "DynamicQuantizeLinear": "operator DynamicQuantizeLinear, which TensorRT's parser does not have",
    "ONNX Runtime's own": "operator com.microsoft.QuickGelu, which is ONNX Runtime's own",
    "minimum of int8": "Min of 8-bit integers",
    "negative scale": "with a scale of -0.1",
    "Dropout that trains": "Dropout in training mode",
    "beyond the end": "an activation of float16 reaches 70000, and float16 ends at 65504",
    "ranges unknown": "ranges unknown",
    "24 for 10.14": "operator set 24; TensorRT 10.14 is documented up to 22",
    "too old": "Max of integers needs onnxruntime 1.24, here is 1.23.2",
    "half-precision bias": "a float16 bias of 9.99e+04 steps of its input and weight, and float16 ends at 65504",
    "operator set": "operator set 22; onnxruntime 1.20.1 reads up to 21",
    "IR version": "IR version 11; onnxruntime 1.22.2 reads up to 10",
    "zero point": "a concatenation is quantized with a zero point before a BatchNormalization",
    "dynamic": "dynamic",
    "wide": "'x' is 1×4×8×8193",
    "along rows": "Concat along axis 2, and the DLA does it along channels only",
}


@pytest.mark.parametrize("case", [c for c in (*TENSORRT, *OTHERS) if c.name in WORDS and c.level], ids=lambda c: c.id)
def test_the_message_says_what_was_found(case: Case) -> None:
    found = next(finding for finding in findings(case) if finding.code == case.rule.upper())

    assert WORDS[case.name] in found.text


def test_every_code_has_its_message_read() -> None:
    read = {case.rule for case in (*TENSORRT, *OTHERS) if case.name in WORDS and case.level}

    assert read | BY_HAND == set(lint.CATALOGUE.names())


def test_a_finding_in_one_line_names_code_and_node() -> None:
    found = LintFinding(code="TRT001", level="error", node="conv1", text="a zero point", cure="none")

    assert str(found) == "TRT001: node 'conv1': a zero point"


def test_weights_of_two_gibibytes_are_too_much_for_one_file() -> None:
    large = ir.Tensor(np.broadcast_to(np.float32(0), (2**29,)), name="w")  # no memory behind it
    value = ir.Value(name="w", const_value=large, shape=ir.Shape([2**29]), type=ir.TensorType(ir.DataType.FLOAT))
    model = ir.Model(ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 17}), ir_version=8)

    found = lint.lint_model(model, lint.LintTarget(engine="onnxruntime"))

    assert [(f.code, f.text) for f in found] == [("ONNX001", "the weights inside the file hold 2.0 GiB")]
