"""Your own arrays as images: calibrate INT8 on some, check on others, and compare two ways to choose ranges."""

from pathlib import Path

import numpy as np

import deploy_kit

ARRAYS = Path(__file__).parents[1] / "calibration" / "fashion-mnist-10000.npz"  # stands for arrays of yours


def save_images(name: str, chosen: slice) -> Path:
    """Write some labelled images: uint8 of (n, H, W) or (n, H, W, 3), and one class number each."""
    with np.load(ARRAYS) as data:
        np.savez(name, images=data["images"][chosen], labels=data["labels"][chosen])
    return Path(name)


calibration = save_images("calibration.npz", slice(0, 60))
checked = save_images("check.npz", slice(1000, 2000))

graph = deploy_kit.export("bundled:densenet_bc40_fmnist", images=checked, calibration=calibration)
print(f"exported: {graph.difference:.1g} of the largest logit off, on {graph.verified_on}")

for method in ("minmax", "mse"):
    quantized = deploy_kit.quantize(graph, "int8", method=method)
    engine = deploy_kit.build(quantized, "onnxruntime", out=f"{quantized.name}.onnx")
    report = deploy_kit.check(engine, max_drop=2.0)
    print(f"{method}: SQNR {report.sqnr_db:.1f} dB, agreement {report.agreement:.1%}, {engine.size_bytes / 1e3:.0f} kB")
    for failure in report.failures:  # a limit that is not kept is an answer, never an exception
        print(f"  {failure}")
