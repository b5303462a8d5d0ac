"""What the curves are made of, held against numpy in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from dense_graphs import Sketch
from slim_graphs import image_set

from deploy_kit.base.errors import SlimError
from deploy_kit.graph import onnx_file
from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.slimming import bottlenecks, curves


def test_inputs_far_from_zero_keep_their_small_variances() -> None:
    sketch = Sketch(pixels=(3, 3))
    inner = sketch.node("Relu", sketch.conv(sketch.conv("x", 4), 6, bias=np.full(6, 300.0)))
    model = sketch.model(sketch.head(sketch.conv(inner, 4, 3)))
    places, _ = bottlenecks.find_bottlenecks(model)
    place = next(i for i, one in enumerate(places) if bottlenecks.width(one.reader) == 54)
    graph, tensors = TorchGraph(model), sketch.images(500)
    rows = list[np.ndarray]()
    with torch.no_grad():
        graph.forward(tensors, lambda node, x: rows.append(x.numpy()) if node is places[place].reader else None)

    images, bare = image_set(tensors)
    readers = tuple(one.reader for one in places)
    found = curves._covariances(graph, (readers, ()), images, bare, 32, lambda done: None)[0][place].numpy()

    wanted = np.cov(rows[0].reshape(500, -1).astype(np.float64).T, bias=True)  # one output pixel reads all 9
    assert np.abs(rows[0]).mean() > 50 * np.sqrt(wanted.diagonal().mean())
    assert np.abs(found - wanted).max() < 1e-4 * wanted.diagonal().mean()
    assert np.linalg.eigvalsh(found.astype(np.float64)).min() > 0


def test_a_graph_that_onnxruntime_answers_otherwise_is_refused(tmp_path: Path) -> None:
    sketch = Sketch()
    model = sketch.model(sketch.network())
    onnx_file.save(model, tmp_path / "model.onnx")
    other = Sketch(seed=1)

    with pytest.raises(SlimError, match="differ from ONNX Runtime's by"):
        curves.verified(other.model(other.network()), tmp_path / "model.onnx", sketch.images(1))
