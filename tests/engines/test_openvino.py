"""OpenVINO as an engine: its precision is never left to it, and its segfault is an error of ours."""

import importlib.metadata
import os
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest
from onnxruntime import quantization as ort
from stand_ins import Calibration

from deploy_kit.base.errors import BuildError, EngineCrashError, StoreError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.engines import openvino
from deploy_kit.engines.openvino import OpenVinoOptions
from deploy_kit.recipe import BuildEntry
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

PRECISIONS = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}
crashing_version = pytest.mark.skipif(
    not importlib.metadata.version("openvino").startswith("2026.4.1"),
    reason="this segfault is known of OpenVINO 2026.4.1: pip install openvino==2026.4.1",
)


@pytest.fixture(scope="module")
def deadly(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantize with ONNX Runtime's defaults: Q (zero point ≠ 0) and DQ stand between Concat and BatchNormalization.

    An Identity before each BN hides the pattern from the lint, which would refuse the graph; OpenVINO drops it.
    """
    path = tmp_path_factory.mktemp("deadly") / "deadly.onnx"
    ort.quantize_static(line.store.path(line.lean), path, Calibration(line.inputs()))
    model = ir.load(path)
    for norm in [node for node in model.graph if node.op_type == "BatchNormalization"]:
        identity = ir.node("Identity", [norm.inputs[0]])
        model.graph.insert_before(norm, identity)
        norm.replace_input_with(0, identity.outputs[0])
    ir.save(model, path)
    return path


def settings(line: "Line", precision: str) -> dict[str, str]:
    """Open the float engine in a worker and give what it was set to."""
    built = line.built("fp32", "openvino", inference_precision=precision)
    with line.connection.worker() as worker:
        path = str(line.store.path(built))
        opened = worker.ask("open", path, engine="openvino", path=path, options={"inference_precision": precision})
    return opened["settings"]


def test_float32_is_what_it_computes_in_unless_asked(line: "Line") -> None:
    proof = line.built("fp32", "openvino").proof

    assert proof is not None
    assert {dtype for _, dtype, _ in proof.counts} == {"fp32"}


def test_the_inference_precision_is_always_set_and_recorded(line: "Line") -> None:
    assert settings(line, "f32")["inference_precision"] == "f32"


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_the_precision_recorded_is_the_one_proved(line: "Line", precision: str) -> None:
    recorded = settings(line, precision)["inference_precision"]

    proof = line.built("fp32", "openvino", inference_precision=precision).proof

    assert proof is not None
    assert proof.share(PRECISIONS[recorded], of="Conv") == 1


def test_threads_and_device_are_recorded(line: "Line") -> None:
    found = settings(line, "f32")

    assert (found["threads"], found["device"]) == (str(len(os.sched_getaffinity(0))), "CPU")


def test_no_weight_is_compressed(line: "Line") -> None:
    description = line.store.path(line.built("fp32", "openvino")).read_text()

    assert 'element_type="f32"' in description
    assert 'element_type="f16"' not in description


def test_its_size_counts_the_weights_beside_the_description(line: "Line") -> None:
    engine = line.built("fp32", "openvino")

    folder = line.store.path(engine).parent
    assert engine.size_bytes == sum((folder / name).stat().st_size for name in ("model.xml", "model.bin"))


def test_weights_changed_since_they_were_built_are_noticed(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    lean = Artifact(**vars(line.lean) | {"path": "lean.onnx"})
    (store.root / "lean.onnx").write_bytes(line.store.path(line.lean).read_bytes())
    engine, _ = build.run(
        lean, BuildEntry(engine="openvino", variants=("fp32",)), Context(store=store, connection=line.connection)
    )
    weights = store.path(engine).with_suffix(".bin")

    weights.write_bytes(b"\0" * weights.stat().st_size)

    with pytest.raises(StoreError, match="changed since it was made"):
        store.path(engine)


def test_a_file_that_is_no_onnx_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "noise.onnx"
    path.write_bytes(b"\x08\x0anoise")

    with pytest.raises(BuildError, match="OpenVINO cannot read it") as caught:
        openvino.build(path, tmp_path, OpenVinoOptions())

    assert str(caught.value).startswith(f"{path}: ")


@crashing_version
def test_a_segfault_names_the_file_the_signal_and_a_way_out(line: "Line", deadly: Path, tmp_path: Path) -> None:
    with line.connection.worker() as worker, pytest.raises(EngineCrashError) as caught:
        paths = {"onnx": str(deadly), "folder": str(tmp_path)}
        worker.ask("build", str(deadly), engine="openvino", options={}, **paths)

    assert str(caught.value).startswith(f"{deadly}: the worker process died in 'build' with SIGSEGV")
    assert "quantize for this engine" in caught.value.hint


@pytest.mark.slow
@crashing_version
def test_after_a_segfault_the_next_worker_works(line: "Line", deadly: Path, tmp_path: Path) -> None:
    healthy = str(line.store.path(line.graph("int8")))
    with line.connection.worker() as worker, pytest.raises(EngineCrashError):
        worker.ask("build", str(deadly), engine="openvino", options={}, onnx=str(deadly), folder=str(tmp_path))

    with line.connection.worker() as worker:
        worker.ask("build", healthy, engine="openvino", options={}, onnx=healthy, folder=str(tmp_path))

    assert (tmp_path / "model.xml").is_file()


@crashing_version
def test_a_segfault_leaves_nothing_in_the_store(line: "Line", deadly: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.root / "deadly.onnx").write_bytes(deadly.read_bytes())
    graph = Artifact(**vars(line.graph("int8")) | {"path": "deadly.onnx", "sha256": sha256_of(deadly)})

    with pytest.raises(EngineCrashError):
        build.run(
            graph, BuildEntry(engine="openvino", variants=("int8",)), Context(store=store, connection=line.connection)
        )

    assert {path.name for path in store.root.iterdir()} == {"deadly.onnx"}


def test_the_deadly_graph_is_sound_onnx(deadly: Path) -> None:
    onnx.checker.check_model(str(deadly), full_check=True)
