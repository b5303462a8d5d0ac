"""What rules claim is held against TensorRT-RTX's parser and builder, and against ONNX Runtime."""

import json
import subprocess
import sys

import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from lint_cases import TENSORRT
from lint_graphs import Case, graph

from deploy_kit.base.lazy import install_line, present
from deploy_kit.graph import lint
from deploy_kit.graph import onnx_file as graphs
from deploy_kit.graph.lint.trt007 import ABSENT
from deploy_kit.recipe import compatibility

_TRIED = """
import json, sys
import tensorrt_rtx as trt

def tried(path):
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        return "parser"
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    entry = network.get_input(0)
    if entry.shape[0] == -1:
        rest = tuple(entry.shape)[1:]
        profile = builder.create_optimization_profile()
        profile.set_shape(entry.name, (1, *rest), (4, *rest), (8, *rest))
        config.add_optimization_profile(profile)
    return "built" if builder.build_serialized_network(network, config) else "builder"

builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
parser = trt.OnnxParser(builder.create_network(0), trt.Logger(trt.Logger.INTERNAL_ERROR))
operators, paths = json.load(sys.stdin)
print(json.dumps([[name for name in operators if not parser.supports_operator(name)], [tried(p) for p in paths]]))
"""
needs_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))
OPERATORS = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], dict[str, str]]:
    """Ask TensorRT-RTX, in a process of its own: which operators it lacks, and how far each graph comes."""
    folder = tmp_path_factory.mktemp("tried")
    paths = [folder / f"{number}.onnx" for number in range(len(TENSORRT))]
    for case, path in zip(TENSORRT, paths, strict=True):
        onnx.save(case.proto(), path)
    asked = subprocess.run(
        [sys.executable, "-c", _TRIED], input=json.dumps([OPERATORS, [str(path) for path in paths]]),
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    absent, ends = json.loads(asked.stdout)
    return set(absent), {case.id: end for case, end in zip(TENSORRT, ends, strict=True)}


@pytest.mark.slow
@needs_rtx
@pytest.mark.parametrize("case", TENSORRT, ids=lambda case: case.id)
def test_an_error_is_found_exactly_where_tensorrt_rtx_refuses(
    case: Case, tried: tuple[set[str], dict[str, str]]
) -> None:
    model = graphs.reread(ir.serde.deserialize_model(case.proto()))

    errors = [
        found.code for found in lint.lint_model(model, lint.LintTarget(engine="tensorrt_rtx")) if found.level == "error"
    ]

    assert bool(errors) == (tried[1][case.id] != "built")


@needs_rtx
def test_the_operators_said_to_be_absent_are_those_that_the_parser_denies(
    tried: tuple[set[str], dict[str, str]],
) -> None:
    assert tried[0] == ABSENT


def loads(opset: int, version: int) -> bool:
    """Ask ONNX Runtime whether it reads a graph of these versions."""
    model = onnx.parser.parse_model(f'<ir_version: {version}, opset_import: ["" : {opset}]>\n{graph("y = Relu(x)")}')
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001  # its errors share no class
        assert "version" in str(error) or "opset" in str(error)
        return False
    return True


def test_the_newest_row_is_where_this_onnxruntime_ends() -> None:
    row = compatibility.onnx_limit("onnxruntime", onnxruntime.__version__)
    assert row is not None and row.ir is not None
    if row.since != onnxruntime.__version__:
        pytest.skip(f"the row is of onnxruntime {row.since}: pip install onnxruntime=={row.since}")

    ends = (loads(row.opset, 8), loads(row.opset + 1, 8), loads(17, row.ir), loads(17, row.ir + 1))

    assert ends == (True, False, True, False)
