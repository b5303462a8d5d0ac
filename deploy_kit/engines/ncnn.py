"""ncnn on the CPU, one image at a time. The engine is its network (param) and weights (bin), both made by pnnx.

pnnx stores weights as fp16 unless it is told not to, and ncnn computes in half precision where the processor can: both
would change the answers of a float32 graph in silence (DenseNet-121: 5.5e-3 of a logit), so both are switched off.
They are on for a graph in half precision, whose type is that of the weights in the file: fp16 has a code there, and
bf16 is float32 whose lower halves are all zero.
"""

import importlib.util
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from deploy_kit.base.errors import BuildError
from deploy_kit.base.lazy import missing_error, need
from deploy_kit.base.live_folder import temporary_folder
from deploy_kit.base.progress import ProgressCallback, no_progress
from deploy_kit.engines import Engine, Session, verify_threads
from deploy_kit.machine import environment
from deploy_kit.records.artifacts import Proof

_BY, _OLDEST = "engine 'ncnn'", "1.0.20250916"
_MAGIC = "7767517"  # first line of every param file
# pnnx takes 2 s for a DenseNet-121 of 224 pixels; a file that keeps it for so long has made it loop.
_LIMIT_S = 600
_KINDS = {
    "Convolution": "Conv",
    "ConvolutionDepthWise": "Conv",
    "Deconvolution": "ConvTranspose",
    "InnerProduct": "Gemm",
}
# What stands before the weights of such a layer in the bin file (ncnn, modelbin.cpp): nothing or an aligned float32
# array is 0; the others are arrays of two and one bytes.
_FLAGS = {0x00000000: "fp32", 0x0002C056: "fp32", 0x01306B47: "fp16", 0x000D4B38: "int8"}
_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
# Parameter of a layer, and the bit of it that keeps bfloat16 from the layer (ncnn, docs/developer-guide, featmask).
_FEATURES, _NO_BF16 = 31, 4


@dataclass(frozen=True, kw_only=True)
class NcnnOptions:
    """Options of a recipe's build entry.

    Attributes:
        threads: Threads of one run; 0 uses every core that this process may use.
    """

    threads: int = 0

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: No machine has so many threads.
        """
        verify_threads("ncnn", self.threads)


def _converter() -> Path:
    """Return pnnx's program; its Python package would import torch.

    Raises:
        MissingPackageError: It is not installed.
    """
    spec = importlib.util.find_spec("pnnx")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (program := Path(folder) / "pnnx").is_file():
            return program
    raise missing_error("pnnx", by=_BY)


def _runtime() -> Any:
    """Return ncnn's module.

    Raises:
        MissingPackageError: It is not installed, or older than what this file was written for.
    """
    ncnn = need("ncnn", by=_BY)
    environment.expect_version("ncnn", _OLDEST, by=_BY)
    return ncnn


def build(onnx_file: Path, folder: Path, options: NcnnOptions, on_progress: ProgressCallback = no_progress) -> None:
    """Convert a graph with pnnx, weights as they are, and load the result once.

    A graph in half precision is converted on the host alone: pnnx reads float32, and what makes float32 of it is there.

    Raises:
        BuildError: pnnx or ncnn refuses the graph.
        MissingPackageError: ncnn or pnnx is not installed.
    """
    _runtime()
    program = _converter()
    if not onnx_file.is_file():
        raise BuildError(f"{onnx_file}: no such file")
    with temporary_folder() as aside:
        half = _copy_wide(onnx_file, aside / "model.onnx")  # pnnx writes eight files beside what it reads
        try:
            ended = subprocess.run(
                [program, "model.onnx", f"fp16={half == 'FLOAT16':d}"],
                cwd=aside, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                timeout=_LIMIT_S, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BuildError(f"{onnx_file}: pnnx did not end within {_LIMIT_S} s") from error
        param, weights = aside / "model.ncnn.param", aside / "model.ncnn.bin"
        if ended.returncode or not (param.is_file() and weights.is_file()):
            said = ended.stdout.decode(errors="replace").strip().splitlines()
            raise BuildError(f"{onnx_file}: pnnx cannot convert it: {said[-1] if said else f'exit {ended.returncode}'}")
        if not half:
            _keep_wide(param)
        _load(param, options, about=onnx_file)
        shutil.copyfile(param, folder / ENGINE.file_name)
        shutil.copyfile(weights, _weights(folder / ENGINE.file_name))


def _keep_wide(param: Path) -> None:
    """Mark the layers of a float32 graph, whose weights may happen to be numbers of bfloat16."""
    lines = param.read_text(encoding="utf-8").splitlines()
    marked = [f"{line} {_FEATURES}={_NO_BF16}" if line.partition(" ")[0] in _KINDS else line for line in lines]
    param.write_text("\n".join(marked) + "\n", encoding="utf-8")


def _copy_wide(onnx_file: Path, target: Path) -> str:
    """Copy a graph, one in half precision as float32; return the half type of its weights, empty where it has none."""
    if importlib.util.find_spec("deploy_kit.graph") is None:
        shutil.copyfile(onnx_file, target)
        return ""
    from deploy_kit.graph import onnx_file as onnx_files
    from deploy_kit.graph import widen

    model = onnx_files.load(onnx_file)
    half = widen.half_of(model)
    widen.widen(model)
    onnx_files.save(model, target)
    return half.name if half else ""


def _weights(path: Path) -> Path:
    return path.with_suffix(".bin")


def _load(path: Path, options: NcnnOptions, *, about: Path) -> Any:
    """Load a network that computes in the type of its weights.

    Args:
        path: Param file, its bin file beside it.
        options: Options of the engine.
        about: File that an error is about.

    Raises:
        BuildError: A file is missing, cut off or of another kind, or the network has several inputs or outputs.
    """
    ncnn = _runtime()
    layers = list(_layers(path, about))
    net = ncnn.Net()
    net.opt.num_threads = options.threads or environment.usable_cores()
    net.opt.use_vulkan_compute = False
    # ncnn reads weights without looking at the end of the file: a shorter one would be computed with as zeros.
    dtypes = {dtype for _, dtype in _count_precisions(layers, _weights(path), about)}
    for name in dir(net.opt):
        if name.startswith(("use_fp16", "use_bf16")):
            setattr(net.opt, name, dtypes == {name[4:8]})
    if net.load_param(str(path)) or net.load_model(str(_weights(path))):
        raise BuildError(f"{about}: ncnn {ncnn.__version__} cannot load it, as where it has a layer that ncnn lacks")
    if len(net.input_names()) != 1 or len(net.output_names()) != 1:
        raise BuildError(f"{about}: expected one input and one output, found {net.input_names()}, {net.output_names()}")
    return net


def _layers(path: Path, about: Path) -> Iterator[tuple[str, dict[int, str]]]:
    """Read (type, parameters) of each layer of a param file; arrays have numbers below −23300.

    Raises:
        BuildError: It is missing, cut off or no param file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BuildError(f"{about}: no param file of ncnn: {error}") from error
    if len(lines) < 2 or lines[0].strip() != _MAGIC or not lines[1].split()[0].isdigit():
        raise BuildError(f"{about}: no param file of ncnn: expected '{_MAGIC}' in its first line")
    stated, rows = int(lines[1].split()[0]), [line.split() for line in lines[2:] if line.strip()]
    if len(rows) != stated:
        raise BuildError(f"{about}: cut off: expected {stated} layers, found {len(rows)}")
    for row in rows:
        try:
            skipped = 4 + int(row[2]) + int(row[3])
            yield row[0], {int(key): value for key, _, value in (part.partition("=") for part in row[skipped:])}
        except (ValueError, IndexError) as error:
            raise BuildError(f"{about}: damaged in the line of '{' '.join(row[:2])}'") from error


def _count_precisions(layers: list[tuple[str, dict[int, str]]], weights: Path, about: Path) -> Counter[tuple[str, str]]:
    """Count layers with weights by the type of their weights, and hold the file's length against all of them.

    Raises:
        BuildError: The bin file is missing, or holds less or more than the layers need.
    """
    counts = Counter[tuple[str, str]]()
    try:
        with weights.open("rb") as file:
            for kind, parameters in layers:
                if kind in _KINDS:
                    counts[_KINDS[kind], _pass_weights(file, kind, parameters)] += 1
                else:
                    file.seek(_plain_bytes(kind, parameters), os.SEEK_CUR)
            read, size = file.tell(), weights.stat().st_size
    except (OSError, ValueError) as error:
        raise BuildError(f"{about}: its weights in {weights.name} are damaged: {error}") from error
    if read != size:
        raise BuildError(f"{about}: {weights.name} holds {size:,} bytes, its layers need {read:,}")
    return counts


def _pass_weights(file: BinaryIO, kind: str, parameters: Mapping[int, str]) -> str:
    """Read over one layer's weights and biases, each padded to four bytes, and return the type of its weights."""
    # Parameters are numbered: github.com/Tencent/ncnn/wiki/operation-param-weight-table
    n_weights, has_bias = (2, 1) if kind == "InnerProduct" else (6, 5)
    flag = int.from_bytes(file.read(4), "little")
    if flag not in _FLAGS:
        raise ValueError(f"unknown coding {flag:#010x}")
    dtype = _FLAGS[flag]
    outputs, size = int(parameters.get(0, "0")), int(parameters.get(n_weights, "0")) * _BYTES[dtype]
    if not 0 <= size <= os.fstat(file.fileno()).st_size - file.tell():
        raise ValueError(f"cut off within weights of {size:,} bytes")
    weights = file.read((size + 3) // 4 * 4)
    file.seek(4 * outputs * int(parameters.get(has_bias, "0")), os.SEEK_CUR)
    stays_wide = int(parameters.get(_FEATURES, "0")) & _NO_BF16
    if dtype == "fp32" and not stays_wide and not (np.frombuffer(weights, np.uint32) & 0xFFFF).any():
        return "bf16"
    return dtype


def _plain_bytes(kind: str, parameters: Mapping[int, str]) -> int:
    """Return the bytes of float32 numbers that a layer without a coding has in the bin file."""
    n = int(parameters.get(0, "0"))
    if kind == "BatchNorm":  # slope, mean, variance, bias
        return 16 * n
    if kind == "Scale":
        return 4 * n * (1 + int(parameters.get(1, "0")))
    if kind == "PReLU":
        return 4 * n
    if kind == "MemoryData":
        sides = (int(parameters.get(key, "0")) for key in (0, 1, 11, 2))
        return 4 * int(np.prod([side for side in sides if side]))
    return 0


def prove_precision(path: Path, options: NcnnOptions) -> Proof:
    """Count the layers by the type that their weights have in the file, which decides what loading switches on."""
    counts = _count_precisions(list(_layers(path, path)), _weights(path), path)
    half = {dtype for _, dtype in counts} & {"fp16", "bf16"}
    return Proof(
        source="ncnn's weights",
        counts=tuple((op, dtype, n) for (op, dtype), n in sorted(counts.items())),
        remark=f"stored in {half.pop()}, computed in it where the processor can" if half else "",
    )


class _NcnnSession:
    """A loaded network as a `Session`."""

    batch = 1

    def __init__(self, path: Path, options: NcnnOptions) -> None:
        self._ncnn = _runtime()
        self._net = _load(path, options, about=path)
        (self._input,), (self._output,) = self._net.input_names(), self._net.output_names()
        self.settings: Mapping[str, str] = {
            "threads": str(self._net.opt.num_threads),
            "half_precision": ", ".join(
                name[4:]
                for name in dir(self._net.opt)
                if name.startswith(("use_fp16", "use_bf16")) and getattr(self._net.opt, name)
            )
            or "off",
            "vulkan": "off",
        }

    def bind(self, image: np.ndarray) -> None:
        self._image = self._ncnn.Mat(np.ascontiguousarray(image[0], dtype=np.float32)).clone()

    def run(self) -> None:
        extractor = self._net.create_extractor()
        extractor.input(self._input, self._image)
        _, self._found = extractor.extract(self._output)

    def fetch(self) -> np.ndarray:
        return np.array(self._found, dtype=np.float32)[None]


def open_session(path: Path, options: NcnnOptions) -> Session:
    """Load the network.

    Raises:
        BuildError: ncnn refuses the files.
    """
    return _NcnnSession(path, options)


def why_unavailable() -> str:
    """Return nothing: it runs on any processor that its wheel is for."""
    return ""


ENGINE = Engine(
    package="ncnn",
    converter="pnnx",
    file_name="model.param",
    options=NcnnOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=open_session,
    why_unavailable=why_unavailable,
)
