"""The bundled demo as a float graph, exported once a session, and what a scheme leaves of its logits."""

import functools
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from dense_graphs import run

from deploy_kit import devices, export, graph, images, metrics, recipe, schemes
from deploy_kit.records import Preprocess
from deploy_kit.store import Store


@functools.cache
def exported() -> tuple[bytes, Preprocess]:
    """Export the demo checkpoint, by the exporter that is faster."""
    with tempfile.TemporaryDirectory() as folder, devices.connect(devices.LOCAL) as link:
        store, demo = Store(Path(folder)), recipe.load("demo")
        part = demo.export.model_copy(update={"exporter": "torchscript"})
        made, _ = export.run(demo.source, part, images.SYNTHETIC, store=store, link=link)
        return store.path(made.onnx).read_bytes(), made.onnx.preprocess


@functools.cache
def unseen_images() -> np.ndarray:
    """Give 500 of Fashion-MNIST's test images, preprocessed: (500, 1, 28, 28)."""
    _, preprocess = exported()
    return next(images.open_set("bundled:fashion-mnist-10000", preprocess).first(500).batches(preprocess, 500))


@functools.cache
def float_logits(folder: Path) -> np.ndarray:
    (folder / "float.onnx").write_bytes(exported()[0])
    return run(graph.load(folder / "float.onnx"), unseen_images())[0]


def kept(scheme: ModuleType, folder: Path, n_images: int = 128, **options: Any) -> tuple[float, float]:
    """Quantize with the first calibration images; give SQNR (dB) and agreement of the logits with the float ones."""
    data, preprocess = exported()
    (folder / "source.onnx").write_bytes(data)
    some = images.open_set("bundled:fashion-mnist-512", preprocess).first(n_images)
    calibration = schemes.stream(folder / "source.onnx", some, preprocess)
    scheme.apply(folder / "source.onnx", folder / "target.onnx", scheme.Options(**options), calibration)
    wanted, found = float_logits(folder), run(graph.load(folder / "target.onnx"), unseen_images())[0]
    return metrics.sqnr_db(wanted, found), metrics.agreement(wanted, found)
