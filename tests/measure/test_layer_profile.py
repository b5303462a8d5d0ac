"""Layer profiles: each layer stands where the names it was made of stand, and what cannot be known is said."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from deploy_kit import engines
from deploy_kit.graph import layer_location, onnx_file
from deploy_kit.graph.layer_location import LayerLocation
from deploy_kit.measure import layer_profile
from deploy_kit.records.layer_times import LayerTime, Trace
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

timing_engine = pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
PLACES = {
    "conv": LayerLocation(region="block 1", kind="conv", made_by="conv"),
    "relu": LayerLocation(region="block 1", kind="bn_relu", made_by="conv"),
    "norm": LayerLocation(region="block 2", kind="bn_relu", made_by="bn_relu"),
    "quantize": LayerLocation(region="head", kind="requantize", made_by="conv"),
    "reshape": LayerLocation(region="head", kind="copy", made_by="pool"),
    "cat": LayerLocation(region="block 1", kind="concat", made_by="concat"),
    "pool": LayerLocation(region="transition 1", kind="pool", made_by="pool"),
}


def timed(op: str, *origins: str, ms: tuple[float, ...] = (1.0,)) -> LayerTime:
    return LayerTime(name=f"{op} of {'+'.join(origins)}", op=op, origins=origins, samples_ms=ms)


def attributed(*layers: LayerTime) -> list[tuple[str, str]]:
    """Give (kind, region) of each layer."""
    trace = Trace(source="a test", runs_ms=(9.0,), layers=layers)
    return [(layer.kind, layer.region) for layer in layer_profile.attribute_layers(trace, PLACES).layers]


@pytest.mark.parametrize(
    ("layer", "kind", "region"),
    [
        (timed("QLinearConv", "conv_token_1", "conv"), "conv", "block 1"),
        (timed("Conv", "norm"), "bn_relu", "block 2"),
        (timed("Conv", "relu"), "conv", "block 1"),
        (timed("Subgraph", "norm"), "bn_relu", "block 2"),
        (timed("Subgraph", "quantize"), "requantize", "head"),
        (timed("Reorder"), "copy", "unknown"),
        (timed("Convolution", "nobody knows"), "conv", "unknown"),
        (timed("GroupConvolution", "pool"), "pool", "transition 1"),
        (timed("ReduceMean", "pool"), "pool", "transition 1"),
        (timed("Concat", "cat"), "concat", "block 1"),
        (timed("Something", "nobody knows"), "other", "unknown"),
        (timed("Reshape", "reshape"), "copy", "head"),
    ],
    ids=lambda case: case.name if isinstance(case, LayerTime) else None,
)
def test_a_layer_is_called_what_it_stands_for(layer: LayerTime, kind: str, region: str) -> None:
    assert attributed(layer) == [(kind, region)]


def test_work_fused_with_what_ends_it_stands_where_the_work_is() -> None:
    assert attributed(timed("Convolution", "conv", "quantize")) == [("conv", "block 1")]


def test_a_layer_fused_across_a_border_without_work_is_unknown() -> None:
    assert attributed(timed("Subgraph", "relu", "norm")) == [("bn_relu", "unknown")]


def test_shares_are_of_the_layers_median_times() -> None:
    layers = (
        timed("Conv", "conv", ms=(3, 3, 99)),
        timed("Concat", "cat", ms=(1, 1, 1)),
        timed("Reorder", ms=(0, 4, 4)),
    )
    trace = Trace(source="a test", runs_ms=(9.0, 8.0, 10.0), layers=layers)

    found = layer_profile.attribute_layers(trace, PLACES)

    assert (found.total_ms, found.run_ms, found.runs) == (8, 9, 3)
    assert (found.share(region="block 1"), found.share(kind="conv"), found.unknown) == (0.5, 0.375, 0.5)
    assert (found.regions, found.kinds) == (("block 1", "unknown"), ("copy", "conv", "concat"))


def test_layers_that_took_no_time_have_no_share() -> None:
    found = layer_profile.attribute_layers(
        Trace(source="", runs_ms=(1,), layers=(timed("Conv", "conv", ms=(0,)),)), PLACES
    )

    assert found.share(kind="conv") == 0


def profiled(
    line: "Line", folder: Path, variant: str, engine: str, store: Store | None = None
) -> layer_profile.LayerProfile:
    built = line.built(variant, engine)
    np.save(folder / "in.npy", line.inputs()[:1])
    path, inputs = str(line.store.path(built)), str(folder / "in.npy")
    return layer_profile.profile_layers(
        built, path=path, inputs=inputs, store=store or line.store, connection=line.connection
    )


@pytest.mark.slow
@timing_engine
@pytest.mark.parametrize("variant", ["fp32", "int8"])
def test_every_convolution_of_a_real_engine_is_found_in_its_region(
    variant: str, name: str, line: "Line", tmp_path: Path
) -> None:
    model = onnx_file.load(line.store.path(line.graph(variant)))
    places = layer_location.locations(model)
    wanted = Counter(places[n.outputs[0].name or ""].region for n in model.graph if layer_location.kind_of(n) == "conv")

    found = profiled(line, tmp_path, variant, name)

    assert Counter(layer.region for layer in found.layers if layer.kind == "conv") == wanted


@pytest.mark.slow
@timing_engine
def test_every_concatenation_of_a_real_engine_is_in_a_block(name: str, line: "Line", tmp_path: Path) -> None:
    found = profiled(line, tmp_path, "int8", name)

    regions = Counter(layer.region for layer in found.layers if layer.kind == "concat")
    # OpenVINO leaves out what never took a step of its clock, a microsecond, which these concatenations come near.
    assert regions <= Counter({"block 1": 2, "block 2": 2})
    assert len(regions) == 2 if name == "openvino" else regions == {"block 1": 2, "block 2": 2}


@pytest.mark.slow
@timing_engine
def test_no_work_of_a_real_engine_stays_unknown(name: str, line: "Line", tmp_path: Path) -> None:
    found = profiled(line, tmp_path, "int8", name)

    unknown = {layer.kind for layer in found.layers if layer.region == "unknown"}
    assert unknown.isdisjoint({"conv", "gemm", "concat", "pool"})


@pytest.mark.slow
@timing_engine
def test_the_layers_of_a_run_fit_into_it(name: str, line: "Line", tmp_path: Path) -> None:
    found = profiled(line, tmp_path, "fp32", name)

    assert found.runs == layer_profile.RUNS
    assert all(layer.total_ms >= 0 for layer in found.layers)
    assert found.total_ms > 0


def test_without_the_graph_no_layer_has_a_region(line: "Line", tmp_path: Path) -> None:
    found = profiled(line, tmp_path, "fp32", "onnxruntime", Store(tmp_path / "empty"))

    assert (found.unknown, found.regions) == (1, ("unknown",))


def test_an_engine_that_does_not_time_its_layers_says_so(line: "Line", tmp_path: Path) -> None:
    found = profiled(line, tmp_path, "fp32", "reference")

    assert (found.layers, found.remark) == ((), "engine 'reference' does not time its layers")


@timing_engine
def test_a_trace_has_one_time_a_run_for_each_layer(name: str, line: "Line") -> None:
    engine, built = engines.CATALOGUE.get(name), line.built("fp32", name)
    assert engine.profile is not None

    trace = engine.profile(line.store.path(built), engine.options(), line.inputs()[:1], 3)

    assert len(trace.runs_ms) == 3
    assert {len(layer.samples_ms) for layer in trace.layers} == {3}


@pytest.mark.slow
def test_onnxruntime_times_as_many_kernels_as_it_runs(line: "Line", tmp_path: Path) -> None:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    ort.InferenceSession(str(line.store.path(line.graph("int8"))), settings, providers=["CPUExecutionProvider"])

    found = profiled(line, tmp_path, "int8", "onnxruntime")

    assert len(found.layers) == len(onnx.load(tmp_path / "optimized.onnx").graph.node)


def test_a_device_needs_no_onnx_to_prove_and_profile(line: "Line") -> None:
    path = str(line.store.path(line.built("int8", "onnxruntime")))
    probe = (
        "import sys, numpy, pathlib; sys.modules['onnx'] = sys.modules['onnx_ir'] = None;"
        "from deploy_kit.engines import onnxruntime as e;"
        f"path = pathlib.Path({path!r}); image = numpy.zeros({line.lean.inputs[0].shape!r}, 'f');"
        "options = e.OnnxRuntimeOptions();"
        "print(e.prove_precision(path, options).share('int8'), len(e.profile(path, options, image, 2).runs_ms))"
    )

    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout

    assert said.split() == ["1.0", "2"]
