"""Take other people's networks that concatenate features over the whole line: ONNX, INT8, two engines, check.

    python -m tests.quantization.concat_sweep [--only TEXT] [--part K/N] [--most-parameters MILLIONS] [--limit S]
        [--exporter dynamo|torchscript] [--list]

Networks are every DenseNet encoder with every decoder of segmentation_models_pytorch (three take none), and of timm's
registry every model that concatenates: its module's source calls `torch.cat` and knows no attention, and its ONNX graph
holds a Concat on the channels of maps that a convolution reads, behind norms, activations and pools or not. Weights are
seeded, BatchNorm statistics are those of smooth noise; where residual branches of full scale make an output of
rounding, they have a tenth of it. Each network has a process of its own, so that one that crashes
or hangs is one row.
"""

import argparse
import importlib
import inspect
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from tests.checkpoint import implementations

SUPPORT = Path(__file__).parents[1] / "support"
SIDE = 64
ENCODERS = ("densenet121", "densenet161", "densenet169", "densenet201")
DECODERS = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "PAN", "DeepLabV3", "DeepLabV3Plus", "UPerNet")
LEAST_DB = 10.0  # of seeded weights, whose logits hardly differ between images; below it, more than the stock quantizer
MOST_AMPLIFIED = 1e-4  # by whose rounding outputs move; beyond it, a comparison tells of rounding alone
_BETWEEN = frozenset(
    {"BatchNormalization", "Relu", "Clip", "LeakyRelu", "MaxPool", "AveragePool", "Mul", "Add", "Sigmoid"}
)


class NoNetworkError(Exception):
    """The library does not put this decoder on this encoder."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="names that hold this text")
    parser.add_argument("--part", default="1/1", help="a part of the names in order of size, e.g. 2/4")
    parser.add_argument("--most-parameters", type=float, default=1e9, help="millions")
    parser.add_argument("--limit", type=float, default=400, help="seconds for one network")
    parser.add_argument("--exporter", default="dynamo", choices=("dynamo", "torchscript"), help="of torch")
    parser.add_argument("--list", action="store_true", help="print the candidates and their parameters")
    parser.add_argument("--one", help="walk one network in this process")
    options = parser.parse_args()
    if options.one:
        print(walked(options.one, options.exporter))
        return 0
    sizes = {name: n for name, n in candidates() if options.only in name and n <= options.most_parameters * 1e6}
    part, n_parts = map(int, options.part.split("/"))
    names = sorted(sizes, key=lambda name: sizes[name])[part - 1 :: n_parts]
    if options.list:
        print("\n".join(f"{sizes[name] / 1e6:8.1f} M  {name}" for name in names))
        return 0
    counts: Counter[str] = Counter()
    for name in names:
        start = time.perf_counter()
        outcome = in_a_process(name, options.limit, options.exporter)
        counts[outcome.partition(":")[0]] += 1
        print(f"{time.perf_counter() - start:6.1f} s  {name}: {outcome}", flush=True)
    print(", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    return 1 if counts["failed"] else 0


def in_a_process(name: str, limit_s: float, exporter: str = "dynamo") -> str:
    """Walk one network; its outcome in a line: passed, no concat network, or failed with the reason."""
    command = [sys.executable, "-m", "tests.quantization.concat_sweep", "--one", name, "--exporter", exporter]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        return f"failed: more than {limit_s:g} s"
    if ended.returncode:
        return f"failed: exit {ended.returncode}: {' '.join(ended.stderr.strip().splitlines()[-1:])[:300]}"
    return ended.stdout.strip().splitlines()[-1]


def walked(name: str, exporter: str) -> str:
    """Take one network over the line, at its own size where it takes no other."""
    sys.path.append(str(SUPPORT))
    whole_line: Any = importlib.import_module("whole_line")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        file = at / "model.onnx"
        side = SIDE
        try:
            write(name, file, side, exporter)
        except NoNetworkError as error:
            return f"no network: {error}"
        except (RuntimeError, ValueError, NotImplementedError, AssertionError):  # it takes inputs of one size alone
            side = own_side(name)
            write(name, file, side, exporter)
        if not name.startswith("smp:") and not concatenates(onnx.load(file, load_external_data=False)):
            return "no concat network: no convolution reads a concatenation of channels"
        found = whole_line.walk(file, at, sides=(side, side))
        noise = {engine: found.parity["int8", engine].sqnr_db for engine in whole_line.ENGINES}
        said = ", ".join(f"{engine} {db:.1f} dB" for engine, db in noise.items())
        good = min(noise.values()) > LEAST_DB
        if not good:  # of a net whose logits drown in any rounding: about what ONNX Runtime's quantizer leaves
            (at / "stock").mkdir()
            stock = whole_line.walk(file, at / "stock", sides=(side, side), scheme="int8_ort")
            theirs = stock.parity["int8", "onnxruntime"].sqnr_db
            good, said = min(noise.values()) > theirs - 0.5, f"{said} (quantize_static: {theirs:.1f} dB)"
    floats = min(found.parity["fp32", engine].sqnr_db for engine in whole_line.ENGINES)
    return f"{'passed' if floats > 60 and good else 'failed'}: int8 {said}; fp32 {floats:.0f} dB"


def candidates() -> Iterator[tuple[str, int]]:
    """Iterate over (name, parameters) of what is to be walked; those of timm by the source of their module."""
    timm: Any = importlib.import_module("timm")
    smp: Any = importlib.import_module("segmentation_models_pytorch")
    for encoder in ENCODERS:
        for decoder in DECODERS:
            if hasattr(smp, decoder):
                yield f"smp:{decoder}:{encoder}", _parameters(lambda e=encoder: timm.create_model(e))
    registry: Any = importlib.import_module("timm.models")
    for name in timm.list_models():
        source = inspect.getsource(inspect.getmodule(registry.model_entrypoint(name)))
        if "torch.cat(" in source and "ttention" not in source:
            yield f"timm:{name}", _parameters(lambda n=name: timm.create_model(n))


def own_side(name: str) -> int:
    """Return the side in px that a network of timm is made for; of a decoder, one whose last map has 6×6 pixels.

    Pyramid poolings make 1, 2, 3 and 6 pixels a side of it, which exporters write where they divide it.
    """
    if name.startswith("smp:"):
        return 192
    timm: Any = importlib.import_module("timm")
    return int(timm.create_model(name.partition(":")[2]).default_cfg["input_size"][-1])


def write(name: str, path: Path, side: int, exporter: str) -> None:
    """Build a network with seeded weights, settle its statistics, and export it by one of torch's exporters."""
    x = torch.nn.functional.interpolate(
        torch.randn(8, 3, -(-side // 4), -(-side // 4), generator=torch.Generator().manual_seed(0)), scale_factor=4
    )[..., :side, :side]
    model = seeded(name, x)
    if amplification(model, side) > MOST_AMPLIFIED:
        model = seeded(name, x, branches=0.1)
    names = {"input_names": ["x"], "output_names": ["y"]}
    dynamo = exporter == "dynamo"
    torch.onnx.export(model, (x[:1],), str(path), dynamo=dynamo, external_data=False, verbose=False, **names)


def seeded(name: str, x: torch.Tensor, branches: float | None = None) -> nn.Module:
    """Build a network for inference, its statistics those of `x`.

    Args:
        name: Library and network, as `candidates` names them.
        x: (8, 3, H, W) float32.
        branches: Scale of those last BNs of residual branches that the library begins at 0; by default that of any BN.
    """
    kind, _, rest = name.partition(":")
    torch.manual_seed(0)
    if kind == "smp":
        decoder, _, encoder = rest.partition(":")
        smp: Any = importlib.import_module("segmentation_models_pytorch")
        try:
            model = getattr(smp, decoder)(encoder, encoder_weights=None, classes=5)
        except ValueError as error:  # a decoder for dilated encoders
            raise NoNetworkError(str(error)) from error
    else:
        timm: Any = importlib.import_module("timm")
        model = timm.create_model(rest, num_classes=16)
    for key, parameter in model.named_parameters():
        if key.endswith("gamma"):  # a layer scale of 1e-6 would hide every branch
            nn.init.ones_(parameter)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if branches is None or module.weight.any():
                nn.init.uniform_(module.weight, 0.5, 1.5)
            else:
                nn.init.constant_(module.weight, branches)
            nn.init.normal_(module.bias, 0, 0.2)
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(x)
    return model.eval()  # type: ignore[no-any-return]


@torch.no_grad()
def amplification(model: nn.Module, side: int) -> float:
    """Compute how far outputs move on noise, relative to the largest, where each weight moves by a rounding error."""
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 3, side, side, generator=generator) - 0.45) / 0.225
    outputs = model(x)
    before = [parameter.clone() for parameter in model.parameters()]
    for parameter in model.parameters():
        parameter.mul_(1 + (2 * torch.randint(0, 2, parameter.shape, generator=generator) - 1) * 2.0**-23)
    moved = model(x)
    for parameter, value in zip(model.parameters(), before, strict=True):
        parameter.copy_(value)
    return float((moved - outputs).abs().max() / outputs.abs().max())


def concatenates(model: onnx.ModelProto) -> bool:
    """Return whether a convolution reads a concatenation of channels of maps."""
    model = onnx.shape_inference.infer_shapes(model)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.value_info}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)

    def reaches(value: str, left: int = 6) -> bool:
        return any(
            node.op_type == "Conv" or (left and node.op_type in _BETWEEN and reaches(node.output[0], left - 1))
            for node in readers.get(value, ())
        )

    joined = (
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Concat" and any(entry.name == "axis" and entry.i in (1, -3) for entry in node.attribute)
    )
    return any(ranks.get(value, 4) == 4 and reaches(value) for value in joined)


def _parameters(make: Any) -> int:
    with torch.device("meta"):
        try:
            return sum(one.numel() for one in make().parameters())
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            return 0  # it cannot be built without memory


if __name__ == "__main__":
    _library = implementations.prepare()
    sys.exit(main())
