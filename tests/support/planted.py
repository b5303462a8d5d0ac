"""A small DenseNet in all its forms, and faults to plant into their files."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from stage_inputs import images_of
from stand_ins import PretendLink
from tiny_densenet import linear_head

from deploy_kit import images
from deploy_kit.analysis import difference
from deploy_kit.context import Context
from deploy_kit.graph import layer_names, onnx_file
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.quantization import schemes
from deploy_kit.recipe import Recipe
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, StemConv
from deploy_kit.records.difference import NetworkDifference
from deploy_kit.store import Store

SPEC = DenseNetSpec(
    in_channels=1,
    stem=(StemConv(channels=8, kernel=(3, 3), stride=(1, 1)),),
    stem_pool="max",
    blocks=(DenseBlock(layers=4, growth=6, bottleneck=12), DenseBlock(layers=3, growth=6, bottleneck=12)),
    transitions=(12,),
    heads=linear_head(4),
)
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "portable": ("int8_portable", {}),
    "depthwise": ("int8_portable", {"form": "depthwise"}),
    "tensorrt": ("int8_tensorrt", {"rest": "fp32"}),
    "everything": ("int8_tensorrt", {"rest": "fp32", "convolutions": "all", "concats": True}),
    "ort": ("int8_ort", {}),
    "nncf": ("int8_nncf", {}),
    "fp16": ("fp16", {}),
}
Find = Callable[[str], onnx.NodeProto]
Fault = Callable[[onnx.ModelProto, Find], None]


@dataclass
class Forms:
    """The network's files: ``exported``, ``simplified``, and what each scheme makes of it."""

    folder: Path
    recipe: Recipe
    made: dict[str, Path] = field(default_factory=dict)

    def file(self, name: str) -> Path:
        """Give the file of a form; quantizes once."""
        if name not in self.made:
            scheme_name, options = FORMS[name]
            scheme, source = schemes.CATALOGUE.get(scheme_name), self.made["simplified"]
            what = onnx_file.preprocess(onnx_file.load(source))
            assert what is not None and self.recipe.quantize.calibration is not None
            calibration = schemes.stream(source, images.open_set(self.recipe.quantize.calibration, what), what)
            scheme.apply(source, self.folder / f"{name}.onnx", scheme.options(**options), calibration)
            self.made[name] = self.folder / f"{name}.onnx"
        return self.made[name]

    def faulty(self, name: str, fault: Fault) -> Path:
        """Write a copy of a form with a fault; the fault finds a convolution by its coordinate."""
        proto, model = onnx.load(self.file(name)), onnx_file.load(self.file(name))
        outputs = {
            f"{group.name}.conv{at}" if len(group.weighted) > 1 else group.name: str(node.outputs[0].name)
            for group in layer_names.layer_groups(model)
            for at, node in enumerate(group.weighted, start=1)
        }
        fault(proto, lambda coordinate: maker(proto, outputs[coordinate]))
        path = self.folder / "faulty.onnx"
        onnx.save(proto, path)
        return path

    def difference(self, first: Path | str, second: Path | str, store: Store) -> NetworkDifference:
        """Compare two files, the worker's own operations in this process."""
        source = self.recipe.source
        pair = [difference.find_subject(str(one), store, source) for one in (first, second)]
        connection = PretendLink(self.folder, {"observe": WorkerProgram().observe})
        return difference.find_difference(
            *pair, Context(store=store, connection=connection), images=images_of(self.recipe.check.images)
        )[0]


def maker(proto: onnx.ModelProto, tensor: str) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if tensor in node.output)


def change(proto: onnx.ModelProto, name: str, edit: Callable[[np.ndarray], np.ndarray]) -> None:
    """Replace the numbers of an initializer."""
    tensor = next(one for one in proto.graph.initializer if one.name == name)
    old = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(edit(old.copy()).astype(old.dtype), name))


def weights_of(proto: onnx.ModelProto, conv: onnx.NodeProto) -> tuple[str, str]:
    """Give the initializers of a convolution's weights and of their scale; of float weights the first alone."""
    if any(one.name == conv.input[1] for one in proto.graph.initializer):
        return conv.input[1], ""
    restore = maker(proto, conv.input[1])
    return restore.input[0], restore.input[1]
