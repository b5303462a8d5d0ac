"""Images through an engine in a worker: every one, in order, a chunk at a time."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from stand_ins import PretendLink

from deploy_kit.base.errors import DeployKitError, EngineCrashError
from deploy_kit.devices import inference
from deploy_kit.devices.inference import InferenceTarget
from deploy_kit.devices.isolate import Child
from deploy_kit.devices.links import Connection
from deploy_kit.images import ImageSet, open_set
from deploy_kit.records.artifacts import Preprocess

SIDE = Preprocess(height=4, width=4, color="gray", mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flatten and multiply: (2, 1, 4, 4) → (2, 3), a static batch of two."""
    weights = np.random.default_rng(1).standard_normal((16, 3), np.float32)
    body = helper.make_graph(
        [helper.make_node("Flatten", ["input"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])],
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [2, 1, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [2, 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    path = tmp_path_factory.mktemp("infer") / "small.onnx"
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Seven gray images of 4×4 px."""
    path = tmp_path_factory.mktemp("images") / "seven.npz"
    np.savez(path, images=np.random.default_rng(2).integers(0, 256, (7, 4, 4), np.uint8))
    return open_set(str(path), SIDE)


def evaluated(graph: Path, images: ImageSet) -> np.ndarray:
    """Give what ONNX's reference evaluator computes, image by image."""
    evaluator = ReferenceEvaluator(onnx.load(graph))
    return np.concatenate([evaluator.run(None, {"input": one})[0] for one in images.batches(SIDE, 1)])


def test_logits_are_those_of_the_reference_evaluator_in_order(
    connection: Connection, graph: Path, images: ImageSet
) -> None:
    found = inference.infer_all(connection, InferenceTarget(engine="onnxruntime", path=graph, options={}), images, SIDE)

    np.testing.assert_allclose(found.logits, evaluated(graph, images), rtol=1e-4, atol=1e-5)


def test_chunks_change_nothing(
    connection: Connection, graph: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_CHUNK", 3)

    found = inference.infer_all(connection, InferenceTarget(engine="onnxruntime", path=graph, options={}), images, SIDE)

    np.testing.assert_allclose(found.logits, evaluated(graph, images), rtol=1e-4, atol=1e-5)


def test_progress_counts_images(
    connection: Connection, graph: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_CHUNK", 3)
    heard: list[int] = []

    inference.infer_all(
        connection,
        InferenceTarget(engine="onnxruntime", path=graph, options={}),
        images,
        SIDE,
        progress=heard.append,
    )

    assert heard == [4, 7]  # whole batches of four


def test_the_settings_of_the_engine_come_back_sorted(connection: Connection, graph: Path, images: ImageSet) -> None:
    found = inference.infer_all(
        connection, InferenceTarget(engine="onnxruntime", path=graph, options={"threads": 1}), images, SIDE
    )

    assert found.settings == (("device", "cpu"), ("provider", "CPUExecutionProvider"), ("threads", "1"))


def test_the_options_reach_the_engine(connection: Connection, graph: Path, images: ImageSet) -> None:
    with pytest.raises(DeployKitError, match="engine 'onnxruntime': unknown key 'thread'"):
        inference.infer_all(
            connection, InferenceTarget(engine="onnxruntime", path=graph, options={"thread": 1}), images, SIDE
        )


def test_a_crash_names_the_engine_file(tmp_path: Path, images: ImageSet) -> None:
    class Deadly(PretendLink):
        def worker(self) -> Child:
            return Child(("/bin/sh", "-c", "kill -SEGV $$"))

    with pytest.raises(EngineCrashError, match=r"model\.plan: the worker process died in 'open' with SIGSEGV"):
        inference.infer_all(
            Deadly(tmp_path, {}),
            InferenceTarget(engine="onnxruntime", path=tmp_path / "model.plan", options={}),
            images,
            SIDE,
        )


def test_the_worker_is_closed_when_the_engine_refuses(tmp_path: Path, images: ImageSet) -> None:
    def refuse(arguments: object) -> None:
        raise DeployKitError("no")

    connection = PretendLink(tmp_path, {"open": refuse})

    with pytest.raises(DeployKitError, match="no"):
        inference.infer_all(
            connection, InferenceTarget(engine="onnxruntime", path=tmp_path / "model.onnx", options={}), images, SIDE
        )

    assert [worker.closed for worker in connection.workers] == [True]


def test_one_chunk_at_a_time_lies_on_the_disk(
    tmp_path: Path, images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_CHUNK", 3)
    seen: list[int] = []

    def answer(arguments: dict[str, str]) -> dict[str, int]:
        chunk = np.load(arguments["inputs"])
        seen.append(len(chunk))
        np.save(arguments["outputs"], chunk.reshape(len(chunk), -1))
        return {"n": len(chunk)}

    connection = PretendLink(tmp_path, {"open": {"batch": 0, "settings": {}}, "infer": answer})
    target = InferenceTarget(engine="onnxruntime", path=tmp_path / "model.onnx", options={})
    inference.infer_all(connection, target, images, SIDE, batch=1)

    assert seen == [3, 3, 1]


@pytest.mark.parametrize(
    ("side", "own", "crops", "n"),
    [
        (28, 0, 1, 256),
        (224, 1, 1, 27),
        (224, 0, 1, 32),
        (224, 48, 1, 48),
        (28, 96, 1, 288),
        (4096, 1, 1, 1),
        (224, 0, 10, 3),
    ],
)
def test_whole_batches_of_few_bytes_are_prepared_together(side: int, own: int, crops: int, n: int) -> None:
    engine = inference.LoadedEngine(batch=own, settings=(), ask=lambda images, batch: images)
    preprocess = dataclasses.replace(SIDE, height=side, width=side)

    assert engine._images_at_once(preprocess, 32, crops) == n


def test_the_logits_of_ten_crops_are_averaged(
    connection: Connection, graph: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "_CHUNK", 30)
    room = dataclasses.replace(SIDE, resize=6)
    noise = open_set("synthetic", room).first(7)
    heard: list[int] = []

    target = InferenceTarget(engine="onnxruntime", path=graph, options={})
    found = inference.infer_all(connection, target, noise, room, crops=10, progress=heard.append)

    evaluator = ReferenceEvaluator(onnx.load(graph))
    rows = [evaluator.run(None, {"input": crop[None]})[0] for one in noise.batches(room, 1, crops=10) for crop in one]
    np.testing.assert_allclose(found.logits, np.reshape(rows, (7, 10, 3)).mean(axis=1), rtol=1e-4, atol=1e-5)
    assert heard == [3, 6, 7]
