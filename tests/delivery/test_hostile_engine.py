"""The engine of a bundle that works without end: refused before native code reads it, or ended where it runs."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_cnns
from bundle_making import reseal
from command_line import deploykit
from onnx import TensorProto, helper, numpy_helper

import deploy_kit
from deploy_kit.base.errors import DeployKitError, EngineCrashError, InputError
from deploy_kit.devices.isolate import Child

pytest_plugins = ["tiny_line", "tiny_bundles"]
pytestmark = pytest.mark.slow


def model_of(nodes: list[onnx.NodeProto], *constants: tuple[str, np.ndarray]) -> onnx.ModelProto:
    """Put nodes that compute `more`, one number, behind the logits of a network with the bundle's input and output."""
    weight = numpy_helper.from_array(np.ones((256, 4), np.float32), "weight")
    held = [numpy_helper.from_array(array, name) for name, array in constants]
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["input"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["raw"]),
            *nodes,
            helper.make_node("Add", ["raw", "more"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 1, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [weight, *held],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def looping(times: int = 2**62) -> onnx.ModelProto:
    """Count so far."""
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "one"], ["next"]),
            helper.make_node("Identity", ["going"], ["goes"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("goes", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1]),
        ],
    )
    node = helper.make_node("Loop", ["times", "", "one"], ["more"], body=body)
    return model_of([node], ("times", np.array(times)), ("one", np.ones(1, np.float32)))


def doubling(levels: int) -> onnx.ModelProto:
    """Join a value with itself, again and again."""
    nodes = [helper.make_node("Concat", [f"x{n}", f"x{n}"], [f"x{n + 1}"], axis=0) for n in range(levels)]
    nodes.append(helper.make_node("ReduceMean", [f"x{levels}"], ["more"], keepdims=0))
    return model_of(nodes, ("x0", np.ones(1024, np.float32)))


def vast(sides: int) -> onnx.ModelProto:
    """Fill a tensor whose shape is known only when it runs."""
    nodes = [
        helper.make_node("Shape", ["raw"], ["shape"]),
        helper.make_node("Mul", ["shape", "factor"], ["wanted"]),
        helper.make_node("Expand", ["one", "wanted"], ["large"]),
        helper.make_node("ReduceMean", ["large"], ["more"], keepdims=0),
    ]
    return model_of(nodes, ("factor", np.array([sides, 1])), ("one", np.ones((1, 1), np.float32)))


def heavy() -> onnx.ModelProto:
    """Convolve a large image, made of one number, with a large kernel."""
    nodes = [
        helper.make_node("Expand", ["one", "square"], ["a"]),
        helper.make_node("Conv", ["a", "kernel"], ["b"], pads=[500, 500, 500, 500]),
        helper.make_node("ReduceMean", ["b"], ["more"], keepdims=0),
    ]
    constants = ("one", np.ones((1, 1, 1, 1), np.float32)), ("square", np.array([1, 1, 30_000, 30_000]))
    kernel = ("kernel", np.ones((1, 1, 1001, 1001), np.float32))
    return model_of(nodes, *constants, kernel)


def functions() -> onnx.ModelProto:
    return small_cnns.with_function(26)


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "a loop": (looping, "has a Loop, which repeats as often as it likes"),
    "values that double": (lambda: doubling(40), r"would hold .* numbers, at most"),
    "functions that double": (functions, "nodes .* once its functions are inlined"),
    "endless convolution": (heavy, r"multiply-accumulates, at most 1e\+12 are run"),
}


def planted(bundle: Path, model: onnx.ModelProto) -> Path:
    """Put a graph into a bundle as if it had been packed."""
    (bundle / "model.onnx").write_bytes(model.SerializeToString())
    reseal(bundle)
    return bundle


@pytest.mark.parametrize("name", HOSTILE)
def test_a_graph_without_end_is_refused_by_verify_and_load(
    bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, said = HOSTILE[name]
    planted(bundle, make())
    monkeypatch.setattr(Child, "ask", lambda *given, **more: pytest.fail("native code was given the file"))
    begun = time.process_time()

    for opened in (deploy_kit.verify, deploy_kit.load):
        with pytest.raises(InputError, match=said):
            opened(bundle)

    assert time.process_time() - begun < 20


def test_the_command_refuses_it_with_its_name_and_what_to_do(bundle: Path) -> None:
    said = deploykit("verify", planted(bundle, looping()))

    assert said.code == 2
    assert "model.onnx: has a Loop" in said.error
    assert said.fix == (
        "  fix: get the bundle from a source that you trust; of your own network, export it without control flow"
    )


def test_a_graph_that_is_sound_is_not_refused_for_being_none_of_ours(bundle: Path) -> None:
    found = deploy_kit.verify(planted(bundle, doubling(3)))

    assert [row.what for row in found.findings if row.ok is False] == ["golden outputs"]


def bounded(file: Path, **limits: object) -> DeployKitError:
    """Let a worker with lower limits run a file that no reading of it shows to be without end."""
    lowered = "".join(f"worker.{name} = {value!r}; " for name, value in limits.items())
    command = (sys.executable, "-c", f"from deploy_kit.programs import worker; {lowered}worker.main()")
    options = {"threads": 1, "optimize": False, "device": "cpu"}
    images = file.with_name("images.npy")
    np.save(images, np.ones((1, 1, 16, 16), np.float32))
    with Child(command) as child, pytest.raises(DeployKitError) as caught:
        child.ask("open", "model.onnx", engine="onnxruntime", path=str(file), options=options, bounded=True)
        child.ask("infer", "model.onnx", inputs=str(images), outputs=str(file.with_name("logits.npy")), batch=1)
    return caught.value


def test_processor_time_of_a_bundles_engine_is_bounded(tmp_path: Path) -> None:
    onnx.save(looping(2**27), tmp_path / "model.onnx")

    error = bounded(tmp_path / "model.onnx", BOUNDED_S=1)

    assert isinstance(error, EngineCrashError)
    assert str(error) == "model.onnx: the worker process died in 'infer' with SIGXCPU"
    assert "run bundles of those whom you trust" in error.hint


def test_memory_of_a_bundles_engine_is_bounded(tmp_path: Path) -> None:
    onnx.save(vast(2**28), tmp_path / "model.onnx")  # 4 GiB

    error = bounded(tmp_path / "model.onnx", MEMORY_SHARE=0.1)

    assert "allocat" in str(error).lower() or "memory" in str(error).lower()
