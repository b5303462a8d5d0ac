"""ONNX Runtime as an engine: its options reach it, its proof is of what ran, its refusals are translated."""

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy_kit.base.errors import BuildError, InputError
from deploy_kit.engines import onnxruntime
from deploy_kit.engines.onnxruntime import OnnxRuntimeOptions

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def small_graph(path: Path, *, batch: int | str = 2, operator: str = "Gemm") -> Path:
    """Write a graph (batch, 3) → (batch, 2): one matrix product with a bias."""
    generator = np.random.default_rng(3)
    arrays = {"w": generator.standard_normal((3, 2), np.float32), "b": generator.standard_normal(2, np.float32)}
    graph = helper.make_graph(
        [helper.make_node(operator, ["input", "w", "b"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_a_session_computes_what_the_reference_evaluator_does(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "small.onnx")
    image = np.random.default_rng(0).standard_normal((2, 3), np.float32)
    session = onnxruntime.open_session(path, OnnxRuntimeOptions())

    session.bind(image)
    session.run()

    wanted = ReferenceEvaluator(onnx.load(path)).run(None, {"input": image})[0]
    np.testing.assert_allclose(session.fetch(), wanted, rtol=1e-6)


def test_sums_of_integers_do_not_saturate_on_any_processor(tmp_path: Path) -> None:
    """x64 without VNNI would add 255 · 127 twice in 16 bits, which gives 32,767."""
    weights = {
        "step": np.float32(1), "zero": np.uint8(0), "w": np.full((1, 32, 1, 1), 127, np.int8), "none": np.int8(0),
    }  # fmt: skip
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["input", "step", "zero"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "step", "zero"], ["x"]),
            helper.make_node("DequantizeLinear", ["w", "step", "none"], ["weight"]),
            helper.make_node("Conv", ["x", "weight"], ["y"]),
            helper.make_node("QuantizeLinear", ["y", "wide", "zero"], ["qy"]),
            helper.make_node("DequantizeLinear", ["qy", "wide", "zero"], ["output"]),
        ],
        "sums",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 32, 4, 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 1, 4, 4])],
        [
            numpy_helper.from_array(np.asarray(value), name)
            for name, value in (weights | {"wide": np.float32(32 * 127)}).items()
        ],
    )
    path = tmp_path / "sums.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    session = onnxruntime.open_session(path, OnnxRuntimeOptions(threads=1))

    session.bind(np.full((1, 32, 4, 4), 255, np.float32))
    session.run()

    np.testing.assert_array_equal(session.fetch(), np.full((1, 1, 4, 4), 255 * 32 * 127, np.float32))


def test_logits_fetched_once_stay_as_they_are(tmp_path: Path) -> None:
    session = onnxruntime.open_session(small_graph(tmp_path / "small.onnx"), OnnxRuntimeOptions())
    session.bind(np.ones((2, 3), np.float32))
    session.run()
    first = session.fetch()
    before = first.copy()

    session.bind(np.zeros((2, 3), np.float32))
    session.run()

    np.testing.assert_array_equal(first, before)


def test_the_number_of_threads_asked_for_is_recorded(tmp_path: Path) -> None:
    session = onnxruntime.open_session(small_graph(tmp_path / "small.onnx"), OnnxRuntimeOptions(threads=1))

    assert session.settings["threads"] == "1"


def test_no_number_of_threads_takes_every_core_of_this_process(tmp_path: Path) -> None:
    session = onnxruntime.open_session(small_graph(tmp_path / "small.onnx"), OnnxRuntimeOptions())

    assert session.settings["threads"] == str(len(os.sched_getaffinity(0)))


def test_the_provider_is_recorded(tmp_path: Path) -> None:
    session = onnxruntime.open_session(small_graph(tmp_path / "small.onnx"), OnnxRuntimeOptions())

    assert session.settings["provider"] == "CPUExecutionProvider"


def test_the_engine_is_the_graph_byte_for_byte(line: "Line") -> None:
    engine = line.built("int8", "onnxruntime")

    assert line.store.path(engine).read_bytes() == line.store.path(line.graph("int8")).read_bytes()


def test_the_proof_shows_half_precision_widened(line: "Line") -> None:
    proof = line.built("fp16", "onnxruntime").proof

    assert proof is not None
    assert proof.share("fp32", of="Conv") == 1


def test_without_the_optimizer_the_proof_of_an_int8_graph_holds_no_int8(line: "Line") -> None:
    path = line.store.path(line.graph("int8"))

    proof = onnxruntime.prove_precision(path, OnnxRuntimeOptions(optimize=False))

    assert proof.share("int8") == 0


def test_bfloat16_is_refused_with_the_name_of_the_file(line: "Line", tmp_path: Path) -> None:
    path = line.store.path(line.graph("bf16"))

    with pytest.raises(BuildError) as caught:
        onnxruntime.build(path, tmp_path, OnnxRuntimeOptions())

    assert str(caught.value).startswith(f"{path}: ONNX Runtime cannot load it: ")


def test_an_unknown_operator_is_refused_by_its_name(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "small.onnx", operator="Gem")

    with pytest.raises(BuildError, match="Gem"):
        onnxruntime.build(path, tmp_path, OnnxRuntimeOptions())


def test_a_file_that_is_cut_off_asks_for_another_export(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "small.onnx")
    path.write_bytes(path.read_bytes()[:40])

    with pytest.raises(InputError, match="not a whole ONNX file") as caught:
        onnxruntime.build(path, tmp_path, OnnxRuntimeOptions())

    assert caught.value.hint == "export it again; the file may be cut off"


def test_nothing_is_copied_of_a_file_that_does_not_load(tmp_path: Path) -> None:
    path = small_graph(tmp_path / "small.onnx", operator="Gem")

    with contextlib.suppress(Exception):
        onnxruntime.build(path, tmp_path, OnnxRuntimeOptions())

    assert not (tmp_path / "model.onnx").exists()
