"""The bundled demo as a float graph, exported once a session, and what a scheme leaves of its logits."""

import functools
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from dense_graphs import run
from stage_inputs import images_of

from deploy_kit import images, recipe
from deploy_kit.accuracy import metrics
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.graph import onnx_file
from deploy_kit.quantization import schemes
from deploy_kit.records.artifacts import Preprocess
from deploy_kit.stages import export
from deploy_kit.store import Store


@functools.cache
def exported() -> tuple[bytes, Preprocess]:
    """Export the demo checkpoint, by the exporter that is faster."""
    with tempfile.TemporaryDirectory() as folder, links.connect_device(links.LOCAL) as connection:
        store, demo = Store(Path(folder)), recipe.load_recipe("demo")
        part = demo.export.model_copy(update={"exporter": "torchscript"})
        made, _ = export.run(
            demo.source, part, Context(store=store, connection=connection), images=images_of(images.SYNTHETIC)
        )
        return store.path(made.onnx).read_bytes(), made.onnx.preprocess


@functools.cache
def unseen_images() -> np.ndarray:
    """Give 500 of Fashion-MNIST's test images, preprocessed: (500, 1, 28, 28)."""
    _, preprocess = exported()
    return next(images.open_set("bundled:fashion-mnist-10000", preprocess).first(500).batches(preprocess, 500))


@functools.cache
def float_logits() -> np.ndarray:
    return run(ir.serde.deserialize_model(onnx.load_from_string(exported()[0])), unseen_images())[0]


@functools.cache
def kept(scheme: ModuleType, n_images: int = 128, **options: Any) -> tuple[float, float]:
    """Quantize with the first calibration images; give SQNR (dB) and agreement of the logits with the float ones."""
    data, preprocess = exported()
    some = images.open_set("bundled:fashion-mnist-512", preprocess).first(n_images)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "target.onnx"
        source.write_bytes(data)
        scheme.SCHEME.apply(source, target, scheme.SCHEME.options(**options), schemes.stream(source, some, preprocess))
        found = run(onnx_file.load(target), unseen_images())[0]
    return metrics.sqnr_db(float_logits(), found), metrics.top1_agreement(float_logits(), found)
