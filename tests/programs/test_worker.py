"""The worker: jobs in, replies out, whatever happens in between; and what it loads to do so."""

import io
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy_kit import images
from deploy_kit.base.errors import DeployKitError, StageError, UnknownNameError
from deploy_kit.devices.isolate import Child
from deploy_kit.devices.links import Connection
from deploy_kit.devices.protocol import Job, Reply, job_line
from deploy_kit.programs import worker
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.records.measurements import Environment, LoadCost

WEIGHTS = np.random.default_rng(5).standard_normal((3, 2), np.float32)


class PretendSession:
    """Doubles what is bound, and notes each call."""

    batch = 2
    settings: dict[str, str] = {}  # noqa: RUF012  # never changed

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bound: list[np.ndarray] = []

    def bind(self, image: np.ndarray) -> None:
        self.calls.append("bind")
        self.bound.append(np.array(image))

    def run(self) -> None:
        self.calls.append("run")

    def fetch(self) -> np.ndarray:
        self.calls.append("fetch")
        return 2 * self.bound[-1]


def served(*jobs: Job) -> list[Reply]:
    """Serve jobs in this process and give the replies."""
    replies = io.StringIO()
    worker.serve(io.StringIO("".join(map(job_line, jobs))), replies, threading.Event())
    return [Reply(**json.loads(line)) for line in replies.getvalue().splitlines()]


def opened(session: PretendSession) -> worker.WorkerProgram:
    """Give a worker that has a session open."""
    made = worker.WorkerProgram()
    made._sessions = (session,)
    return made


def product(path: Path, batch: int | str) -> Path:
    """Write a graph (batch, 3) → (batch, 2): input times WEIGHTS."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["input", "w"], ["logits"])],
        "product",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def inferred(child: Child, engine_file: Path, images: np.ndarray, folder: Path, **arguments: Any) -> np.ndarray:
    """Run images through onnxruntime in a worker."""
    np.save(folder / "in.npy", images)
    child.ask("open", "graph", engine="onnxruntime", path=str(engine_file), options={})
    child.ask("infer", "graph", inputs=str(folder / "in.npy"), outputs=str(folder / "out.npy"), **arguments)
    return np.load(folder / "out.npy")


def test_an_unknown_operation_is_named() -> None:
    reply = served(Job(op="inferr"))[0]

    with pytest.raises(StageError, match="no operation is called 'inferr'"):
        reply.unwrap()


def test_an_error_on_purpose_keeps_its_class_and_hint() -> None:
    reply = served(Job(op="why_unavailable", arguments={"engine": "openvin"}))[0]

    with pytest.raises(UnknownNameError, match="no engine is called 'openvin'") as caught:
        reply.unwrap()

    assert caught.value.hint == "did you mean 'openvino'?"


def test_a_bug_is_told_with_its_class_and_its_place() -> None:
    reply = served(Job(op="why_unavailable"))[0]

    with pytest.raises(StageError, match=r"worker: KeyError in 'why_unavailable' at worker\.py:\d+: 'engine'"):
        reply.unwrap()


def test_the_next_job_is_answered_after_a_failure() -> None:
    replies = served(Job(op="why_unavailable"), Job(op="why_unavailable", arguments={"engine": "reference"}))

    assert replies[1].unwrap() == {"why": ""}


def test_nothing_can_be_inferred_before_an_engine_is_open() -> None:
    reply = served(Job(op="infer", arguments={"inputs": "", "outputs": ""}))[0]

    with pytest.raises(StageError, match="no engine is open"):
        reply.unwrap()


def test_the_whole_span_is_not_timed_before_a_warm_up() -> None:
    made = opened(PretendSession())

    with pytest.raises(StageError, match="time was asked for before warm_up"):
        made.time({"span": "whole", "n": 1})


def test_an_option_that_does_not_fit_names_the_engine() -> None:
    arguments = {"engine": "openvino", "path": "", "options": {"inference_precision": "f31"}}
    reply = served(Job(op="open", arguments=arguments))[0]

    with pytest.raises(DeployKitError, match=r"engine 'openvino'\.inference_precision") as caught:
        reply.unwrap()

    assert caught.value.hint == "did you mean 'f32'?"


@pytest.mark.parametrize("n", [1, 7])
def test_as_many_samples_come_back_as_were_asked_for(n: int) -> None:
    answer = opened(PretendSession()).time({"span": "compute", "n": n})

    assert len(answer["turn"]["samples_ms"]) == n


def test_one_run_is_discarded_before_the_samples() -> None:
    session = PretendSession()

    opened(session).time({"span": "compute", "n": 5})

    assert session.calls == ["run"] * 6


def test_the_whole_span_copies_in_and_out_for_each_sample(tmp_path: Path) -> None:
    session = PretendSession()
    made = opened(session)
    np.save(tmp_path / "in.npy", np.ones((2, 3), np.float32))
    made.warm_up({"inputs": str(tmp_path / "in.npy"), "span": "whole", "limit_s": 0})
    session.calls.clear()

    made.time({"span": "whole", "n": 2})

    assert session.calls == ["bind", "run", "fetch"] * 3


class TimedSession(PretendSession):
    """Counts what it did, as its device's milliseconds."""

    @property
    def device_ms(self) -> dict[str, float]:
        names = {"h2d": "bind", "compute": "run", "d2h": "fetch"}
        return {name: float(self.calls.count(call)) for name, call in names.items()}


def test_what_a_device_times_comes_back_beside_the_samples(tmp_path: Path) -> None:
    session = TimedSession()
    made = opened(session)
    np.save(tmp_path / "in.npy", np.ones((2, 3), np.float32))
    made.warm_up({"inputs": str(tmp_path / "in.npy"), "span": "whole", "limit_s": 0})
    session.calls.clear()

    whole = made.time({"span": "whole", "n": 2})["turn"]["device"]
    compute = made.time({"span": "compute", "n": 1})["turn"]["device"]

    assert whole == {"compute_ms": [2.0, 3.0], "h2d_ms": [2.0, 3.0], "d2h_ms": [2.0, 3.0]}  # 1 was discarded
    assert compute == {"compute_ms": [5.0], "h2d_ms": [], "d2h_ms": []}


def test_a_session_that_times_nothing_has_no_device_times() -> None:
    assert opened(PretendSession()).time({"span": "compute", "n": 1})["turn"]["device"] is None


def test_a_last_part_is_filled_up_to_a_static_batch(tmp_path: Path) -> None:
    session = PretendSession()
    images = np.arange(15, dtype=np.float32).reshape(5, 3)
    np.save(tmp_path / "in.npy", images)

    opened(session).infer({"inputs": str(tmp_path / "in.npy"), "outputs": str(tmp_path / "out.npy")})

    assert [len(part) for part in session.bound] == [2, 2, 2]
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), 2 * images)


def test_a_static_batch_larger_than_the_images_gives_as_many_logits(tmp_path: Path, connection: Connection) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3), np.float32)

    with connection.worker() as child:
        found = inferred(child, product(tmp_path / "graph.onnx", 4), images, tmp_path)

    np.testing.assert_allclose(found, images @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_an_open_batch_gives_the_same_logits_at_any_batch(tmp_path: Path, connection: Connection) -> None:
    images = np.random.default_rng(0).standard_normal((7, 3), np.float32)

    with connection.worker() as child:
        found = inferred(child, product(tmp_path / "graph.onnx", "N"), images, tmp_path, batch=3)

    np.testing.assert_allclose(found, images @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_a_warm_up_tells_what_came_before_it_cost(tmp_path: Path, connection: Connection) -> None:
    np.save(tmp_path / "in.npy", np.zeros((1, 3), np.float32))

    with connection.worker() as child:
        child.ask("open", "graph", engine="onnxruntime", path=str(product(tmp_path / "graph.onnx", 1)), options={})
        warm = child.ask("warm_up", "graph", inputs=str(tmp_path / "in.npy"), span="compute", limit_s=0.05)

    cost = codec.from_json(LoadCost, warm["cost"])
    assert min(cost.load_ms, cost.first_ms) > 0
    assert 0 < cost.memory_before_mib <= cost.peak_memory_mib


def test_the_package_is_imported_before_memory_is_read(tmp_path: Path, connection: Connection) -> None:
    path, about = str(product(tmp_path / "graph.onnx", 1)), "graph"
    np.save(tmp_path / "in.npy", np.zeros((1, 3), np.float32))
    before = []

    with connection.worker() as child:
        for _ in range(2):
            child.ask("open", about, engine="onnxruntime", path=path, options={})
            warm = child.ask("warm_up", about, inputs=str(tmp_path / "in.npy"), span="compute", limit_s=0.05)
            before.append(warm["cost"]["memory_before_mib"])

    assert before[1] - before[0] < 16  # onnxruntime itself takes more than that


def test_an_engine_that_does_not_time_its_layers_is_refused() -> None:
    (reply,) = served(Job(op="profile", arguments={"engine": "reference"}))

    with pytest.raises(StageError, match="worker: engine 'reference' does not time its layers"):
        reply.unwrap()


def test_an_engine_that_does_not_show_what_is_within_it_is_refused() -> None:
    (reply,) = served(Job(op="observe", arguments={"engine": "tensorrt"}))

    with pytest.raises(StageError, match="worker: engine 'tensorrt' does not show what is within it"):
        reply.unwrap()


def test_what_is_within_is_observed_in_batches_of_the_engine(tmp_path: Path, connection: Connection) -> None:
    images = np.random.default_rng(0).standard_normal((3, 3), np.float32)
    path = product(tmp_path / "graph.onnx", 2)
    np.save(tmp_path / "in.npy", images)
    files = {"inputs": str(tmp_path / "in.npy"), "outputs": str(tmp_path / "out.npz")}

    with connection.worker() as child:
        child.ask(
            "observe", "graph", engine="onnxruntime", path=str(path), options={}, tensors=["logits"], batch=2, **files
        )  # fmt: skip

    with np.load(tmp_path / "out.npz") as data:
        assert sorted(data.files) == ["0", "1"]
        np.testing.assert_allclose(data["0"], images @ WEIGHTS, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(data["1"], data["0"])


def test_opening_another_engine_replaces_the_first(tmp_path: Path, connection: Connection) -> None:
    images = np.random.default_rng(0).standard_normal((4, 3), np.float32)

    with connection.worker() as child:
        child.ask("open", "first", engine="reference", path=str(product(tmp_path / "one.onnx", 1)), options={})
        found = inferred(child, product(tmp_path / "four.onnx", 4), images, tmp_path)

    np.testing.assert_allclose(found, images @ WEIGHTS, rtol=1e-5, atol=1e-6)


def test_it_describes_the_machine(connection: Connection) -> None:
    with connection.worker() as child:
        answer = child.ask("environment", "environment")

    assert codec.from_json(Environment, answer["environment"]).cores > 0


def test_what_a_library_prints_is_not_taken_for_a_reply() -> None:
    noisy = (
        "import os; from deploy_kit.programs import worker;"
        "worker.WorkerProgram.why_unavailable ="
        " lambda self, arguments: (os.write(1, b'{}\\n'), print('noise'), {'why': 'none'})[2];"
        "worker.main()"
    )

    with Child((sys.executable, "-c", noisy)) as child:
        answer = child.ask("why_unavailable", "noise", engine="reference")

    assert answer == {"why": "none"}


def test_a_worker_loads_nothing_that_a_small_device_lacks() -> None:
    lacking = {"torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "openvino", "pydantic", "yaml", "typer", "rich"}
    probe = "import sys, deploy_kit.programs.worker; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()

    assert lacking & set(loaded) == set()


def test_a_worker_ends_when_its_input_does() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "deploy_kit.programs.worker"], input="", capture_output=True, text=True
    )

    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("color", ["gray", "rgb", "bgr"])
def test_frames_are_bound_as_the_engine_takes_them(color: str) -> None:
    channels = 1 if color == "gray" else 3
    preprocess = Preprocess(height=4, width=5, color=color, mean=(0.4,) * channels, std=(0.2,) * channels)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, channels), np.uint8)
    session = PretendSession()

    worker.Frames(pixels=pixels, preprocess=preprocess).bind_to(session)
    worker.Frames(pixels=pixels, preprocess=replace(preprocess, input_pixels=True)).bind_to(session)

    wanted = [images.to_tensors(frame[..., 0] if color == "gray" else frame, preprocess) for frame in pixels]
    np.testing.assert_array_equal(session.bound[0], wanted)
    np.testing.assert_array_equal(session.bound[1], pixels)
    assert [part.dtype for part in session.bound] == [np.float32, np.uint8]
