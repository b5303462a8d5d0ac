"""Operators that TensorRT's ONNX parser does not have. One of another domain needs a plugin of its name."""

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from deploy_kit.graph.lint import TENSORRT, LintFault, LintTarget, Rule, name_of

_RUNTIMES_OWN = "com.microsoft"

# What `OnnxParser.supports_operator` of TensorRT-RTX 1.7.1.116 denies, of all operators of onnx 1.23.2.
# fmt: off
ABSENT = frozenset({
    "AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv",
    "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool", "MelWeightMatrix",
    "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement", "OptionalHasElement",
    "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SoftmaxCrossEntropyLoss",
    "SplitToSequence", "StringConcat", "StringNormalizer", "StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique",
})
# fmt: on


def check(model: ir.Model, target: LintTarget) -> Iterator[LintFault]:
    """Find operators without an importer."""
    for node in model.graph:
        if node.op_type in ABSENT:
            yield LintFault(node=name_of(node), text=f"operator {node.op_type}, which TensorRT's parser does not have")
        elif node.domain == _RUNTIMES_OWN and not onnx.defs.has(node.op_type):  # it looks importers up by name alone
            yield LintFault(
                node=name_of(node), text=f"operator {node.domain}.{node.op_type}, which is ONNX Runtime's own"
            )


RULE = Rule(
    targets=TENSORRT,
    level="error",
    title="operators the parser does not have",
    cure="write the graph in operators it has: Q/DQ pairs for quantized operators, export again for others",
    source="measured: TensorRT-RTX 1.7.1.116, OnnxParser.supports_operator and refusals",
    check=check,
)
