"""Stock tools, each called as its own documentation says, with its own defaults unless the recipe's name says else.

The functions run in child processes (`child.call`). The export is ``torch.onnx.export`` as it is: its own optimizer
on, its own operator set; onnxruntime's and NNCF's quantizers get that raw file.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.candidates import Candidate, Stock, Unavailable
from deploy_kit import checkpoint, images
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Preprocess

RAW = "model.onnx"
_HOARDED_PX = 16 * 224 * 224  # 3 GB of activations


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a stock file is made from the raw export.

    Attributes:
        make: (raw file, folder, batches, options) → name of the file written into the folder.
        options: Options of `make`.
        hoards: Keeps every activation of every image while it calibrates: 187 MB an image for DenseNet-121 at 224 px.
        libraries: Distributions whose versions decide the file.
    """

    make: Callable[..., str]
    options: dict[str, Any] = field(default_factory=dict)
    hoards: bool = False
    libraries: tuple[str, ...] = ()

    def most_images(self, n: int, preprocess: Preprocess) -> int:
        """Return the calibration images that this recipe can take on a common machine: at most `n`."""
        fit = _HOARDED_PX // (preprocess.height * preprocess.width)
        return min(n, fit) if self.hoards else n


def export(checkpoint_file: str, preprocess: dict[str, Any], batch: int, folder: str) -> str:
    """Export as torch's documentation says."""
    import torch

    what = codec.from_json(Preprocess, preprocess)
    model = checkpoint.read_checkpoint(Path(checkpoint_file)).model
    dummy = torch.zeros(batch, what.channels, what.height, what.width)
    torch.onnx.export(
        model,
        (dummy,),
        Path(folder) / RAW,
        dynamo=True,
        external_data=False,
        input_names=["input"],
        output_names=["logits"],
    )
    return RAW


def make(
    recipe: str, source: str, folder: str, calibration: str, n: int, preprocess: dict[str, Any], batch: int
) -> str:
    """Make the file of one recipe from the raw export `source`; give its name within `folder`."""
    chosen = RECIPES[recipe]
    what = codec.from_json(Preprocess, preprocess)
    used = images.open_set(calibration, what).first(n)

    def batches() -> Iterator[np.ndarray]:
        return (part for part in used.batches(what, batch) if len(part) == batch)

    return chosen.make(Path(source), Path(folder), batches, **chosen.options)


Batches = Callable[[], Iterator[np.ndarray]]


def _slim(source: Path, folder: Path, batches: Batches) -> str:
    try:
        import onnxslim
    except ImportError as error:
        raise Unavailable("onnxslim is not installed") from error
    onnxslim.slim(str(source), str(folder / RAW))
    return RAW


def _static(source: Path, folder: Path, batches: Batches, method: str, preprocessed: bool = False) -> str:
    from onnxruntime import quantization as ort

    stream = batches()

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def get_next(self) -> dict[str, np.ndarray] | None:
            batch = next(stream, None)
            return None if batch is None else {"input": batch}

    if preprocessed:
        ort.shape_inference.quant_pre_process(str(source), str(folder / "preprocessed.onnx"))
        source = folder / "preprocessed.onnx"
    ort.quantize_static(
        str(source),
        str(folder / RAW),
        Reader(),
        quant_format=ort.QuantFormat.QDQ,
        per_channel=True,
        activation_type=ort.QuantType.QUInt8,
        weight_type=ort.QuantType.QInt8,
        calibrate_method=ort.CalibrationMethod[method],
    )
    return RAW


def _nncf(source: Path, folder: Path, batches: Batches, preset: str | None = None, minmax: bool = False) -> str:
    import openvino

    try:
        import nncf
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet
    except ImportError as error:
        raise Unavailable("nncf is not installed") from error
    chosen: dict[str, Any] = {}
    if preset is not None:
        chosen["preset"] = nncf.QuantizationPreset(preset)
    if minmax:
        chosen["advanced_parameters"] = nncf.AdvancedQuantizationParameters(
            activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
        )
    calibration = list(batches())
    typed = nncf.quantize(
        openvino.convert_model(source), nncf.Dataset(calibration), subset_size=len(calibration), **chosen
    )
    openvino.save_model(typed, folder / "model.xml", compress_to_fp16=False)
    return "model.xml"


_ORT, _NNCF = ("onnxruntime", "onnx"), ("nncf", "openvino")
RECIPES = {
    "slim": Recipe(make=_slim, libraries=("onnxslim", "onnx")),
    "static-minmax": Recipe(make=_static, options={"method": "MinMax"}, libraries=_ORT),
    "static-minmax-preprocessed": Recipe(
        make=_static, options={"method": "MinMax", "preprocessed": True}, libraries=_ORT
    ),
    "static-percentile": Recipe(make=_static, options={"method": "Percentile"}, hoards=True, libraries=_ORT),
    "static-entropy": Recipe(make=_static, options={"method": "Entropy"}, hoards=True, libraries=_ORT),
    "nncf": Recipe(make=_nncf, libraries=_NNCF),
    "nncf-mixed": Recipe(make=_nncf, options={"preset": "mixed"}, libraries=_NNCF),
    "nncf-minmax": Recipe(make=_nncf, options={"minmax": True}, libraries=_NNCF),
    "nncf-mixed-minmax": Recipe(make=_nncf, options={"preset": "mixed", "minmax": True}, libraries=_NNCF),
}
"""Beside these ``raw`` is the export itself, and ``checkpoint`` the checkpoint, for torch."""


def _row(name: str, recipe: str, engine: str, **options: Any) -> Candidate:
    return Candidate(name=name, file=Stock(recipe=recipe), engine=engine, options=options)


CANDIDATES = (
    _row("eager@torch", "checkpoint", "torch"),
    _row("compile@torch", "checkpoint", "torch", compiled=True),
    _row("raw@ort", "raw", "onnxruntime"),
    _row("slim@ort", "slim", "onnxruntime"),
    _row("static-minmax@ort", "static-minmax", "onnxruntime"),
    _row("static-minmax-preprocessed@ort", "static-minmax-preprocessed", "onnxruntime"),
    _row("static-percentile@ort", "static-percentile", "onnxruntime"),
    _row("static-entropy@ort", "static-entropy", "onnxruntime"),
    _row("raw@ov", "raw", "openvino"),
    _row("slim@ov", "slim", "openvino"),
    _row("raw-bf16@ov", "raw", "openvino", inference_precision="bf16"),
    _row("nncf@ov", "nncf", "openvino"),
    _row("nncf-bf16@ov", "nncf", "openvino", inference_precision="bf16"),
    _row("nncf-mixed@ov", "nncf-mixed", "openvino"),
    _row("nncf-mixed-minmax@ov", "nncf-mixed-minmax", "openvino"),
    _row("static-minmax@ov", "static-minmax", "openvino"),
)

BASELINES = {
    "onnxruntime": ("static-minmax@ort", "raw@ort"),
    "openvino": ("nncf@ov", "raw@ov"),
    "torch": ("", "eager@torch"),
}
"""What candidates are held against, by engine: the stock INT8 file, and float32."""
