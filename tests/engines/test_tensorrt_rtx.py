"""TensorRT-RTX as an engine, on a machine without a GPU: real plans, and real refusals that reach the user whole."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from onnxruntime import quantization as ort
from stand_ins import Calibration

from deploy_kit.base.errors import BuildError, DeviceError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.context import Context
from deploy_kit.engines import _cuda
from deploy_kit.records.measurements import NotRun
from deploy_kit.stages import check

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx")),
]

CAPABILITIES = ("8.6", "8.9")
without_gpu = pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")
every_capability = pytest.mark.parametrize("capability", CAPABILITIES)


def plan(line: "Line", onnx_file: Path, folder: Path, **options: object) -> Path:
    """Build a plan in a worker and give its path."""
    with line.connection.worker() as worker:
        paths = {"onnx": str(onnx_file), "folder": str(folder)}
        worker.ask("build", str(onnx_file), engine="tensorrt_rtx", options=options, **paths)
    return folder / "model.rtx.plan"


def parser_words(onnx_file: Path) -> list[str]:
    """Ask the parser itself, in a process of its own, what it says of a file."""
    script = (
        "import sys, tensorrt_rtx as trt\n"
        "logger = trt.Logger(trt.Logger.INTERNAL_ERROR)\n"
        "builder = trt.Builder(logger)\n"
        "network = builder.create_network(0)\n"
        "parser = trt.OnnxParser(network, logger)\n"
        "parser.parse_from_file(sys.argv[1])\n"
        "print('\\x1e'.join(parser.get_error(i).desc().strip() for i in range(parser.num_errors)))\n"
    )
    asked = subprocess.run([sys.executable, "-c", script, str(onnx_file)], capture_output=True, text=True, check=True)
    return asked.stdout.strip().split("\x1e")


@pytest.fixture(scope="module")
def with_zero_point(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantize activations with a zero point, and leave the biases in float."""
    path = tmp_path_factory.mktemp("asymmetric") / "zero_point.onnx"
    switches = {"QuantizeBias": False}
    ort.quantize_static(
        line.store.path(line.lean),
        path,
        Calibration(line.inputs()),
        op_types_to_quantize=["Conv"],
        extra_options=switches,
    )
    return path


@pytest.fixture(scope="module")
def with_int32_biases(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantize symmetrically, biases too: they become int32 with a DequantizeLinear."""
    path = tmp_path_factory.mktemp("biases") / "biases.onnx"
    ort.quantize_static(
        line.store.path(line.lean),
        path,
        Calibration(line.inputs()),
        op_types_to_quantize=["Conv"],
        activation_type=ort.QuantType.QInt8,
        extra_options={"ActivationSymmetric": True},
    )
    return path


@every_capability
@pytest.mark.parametrize("name", ["fp16", "int8-symmetric"])
def test_a_plan_is_written_without_a_gpu(name: str, capability: str, line: "Line") -> None:
    engine = line.built(name, "tensorrt_rtx", compute_capabilities=[capability])

    assert line.store.path(engine).stat().st_size > 0


def test_one_plan_serves_several_capabilities(line: "Line") -> None:
    one = line.built("fp16", "tensorrt_rtx", compute_capabilities=["8.9"])

    both = line.built("fp16", "tensorrt_rtx", compute_capabilities=list(CAPABILITIES))

    assert both.size_bytes > one.size_bytes


@every_capability
def test_the_proof_of_a_half_precision_graph_is_mostly_fp16(capability: str, line: "Line") -> None:
    proof = line.built("fp16", "tensorrt_rtx", compute_capabilities=[capability]).proof

    assert proof is not None
    assert proof.share("fp16", of="activation") > 0.5


@every_capability
def test_the_proof_of_an_int8_graph_shows_int8_activations(capability: str, line: "Line") -> None:
    proof = line.built("int8-symmetric", "tensorrt_rtx", compute_capabilities=[capability]).proof

    assert proof is not None
    assert proof.share("int8", of="activation") > 0


@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_the_proof_of_a_float_graph_shows_no_int8(name: str, line: "Line") -> None:
    proof = line.built(name, "tensorrt_rtx", compute_capabilities=["8.9"]).proof

    assert proof is not None
    assert proof.share("int8") == 0


def test_the_proof_of_a_bfloat16_graph_is_mostly_bf16(line: "Line") -> None:
    proof = line.built("bf16", "tensorrt_rtx", compute_capabilities=["8.9"]).proof

    assert proof is not None
    assert proof.share("bf16", of="activation") > 0.5


@pytest.fixture(scope="module")
def refusal(line: "Line", with_zero_point: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildError, Path]:
    """What is said of a zero point, and the folder that the plan was for."""
    folder = tmp_path_factory.mktemp("refused")
    with pytest.raises(BuildError) as caught:
        plan(line, with_zero_point, folder, compute_capabilities=["8.9"])
    return caught.value, folder


def test_a_zero_point_is_refused_with_the_way_out(refusal: tuple[BuildError, Path]) -> None:
    error, _ = refusal

    assert "zero point" in str(error)
    assert "symmetric int8 only" in error.hint
    assert "quantize --int8 --target tensorrt" in error.hint


def test_the_words_of_the_parser_reach_the_user_whole(refusal: tuple[BuildError, Path], with_zero_point: Path) -> None:
    error, _ = refusal

    for words in parser_words(with_zero_point):
        assert words in str(error)


def test_a_refusal_writes_no_plan(refusal: tuple[BuildError, Path]) -> None:
    _, folder = refusal

    assert list(folder.iterdir()) == []


def test_an_int32_bias_is_refused_by_its_node_and_with_the_way_out(
    line: "Line", with_int32_biases: Path, tmp_path: Path
) -> None:
    graph = onnx.load(with_int32_biases).graph
    biases = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32}
    names = [node.name for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in biases]

    with pytest.raises(BuildError, match="Int32") as caught:
        plan(line, with_int32_biases, tmp_path, compute_capabilities=["8.9"])

    assert any(f"node '{name}' (DequantizeLinear): " in str(caught.value) for name in names)
    assert "no quantized biases" in caught.value.hint
    assert "quantize --int8 --target tensorrt" in caught.value.hint


def test_the_demos_asymmetric_scheme_is_refused(line: "Line", tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="tensorrt_rtx's parser refuses it") as caught:
        plan(line, line.store.path(line.graph("int8")), tmp_path, compute_capabilities=["8.9"])

    assert "--target tensorrt" in caught.value.hint


def test_an_unknown_capability_is_named_with_the_known_ones(line: "Line", tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"cannot build for compute capability '5\.0'") as caught:
        plan(line, line.store.path(line.lean), tmp_path, compute_capabilities=["5.0"])

    known = caught.value.hint.removeprefix("known: ").split(", ")
    assert set(CAPABILITIES) <= set(known)


@without_gpu
def test_without_a_capability_and_a_gpu_nothing_is_built(line: "Line", tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no compute capability named, and no NVIDIA GPU on this machine") as caught:
        plan(line, line.store.path(line.lean), tmp_path)

    assert caught.value.hint == "name the GPU to build for, e.g. --compute-capability 8.9"


@without_gpu
def test_running_a_plan_needs_the_gpu(line: "Line") -> None:
    engine = line.built("fp16", "tensorrt_rtx", compute_capabilities=["8.9"])
    path = str(line.store.path(engine))

    with (
        line.connection.worker() as worker,
        pytest.raises(DeviceError, match="no NVIDIA GPU on this machine") as caught,
    ):
        worker.ask("open", path, engine="tensorrt_rtx", path=path, options={})

    assert caught.value.hint == "run it on a machine with an NVIDIA GPU"


@without_gpu
def test_checking_a_plan_says_why_it_is_not_run(line: "Line") -> None:
    engine = line.built("fp16", "tensorrt_rtx", compute_capabilities=["8.9"])

    found, _ = check.run(
        engine,
        line.recipe.check,
        Context(store=line.store, connection=line.connection),
        reference=line.answers,
        images=line.check_images,
    )

    wanted = NotRun(artifact=engine.sha256, label="fp16 · tensorrt_rtx", why="no NVIDIA GPU on this machine")
    assert found == wanted
