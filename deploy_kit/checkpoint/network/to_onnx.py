"""DenseNet module → ONNX file by torch's exporters, in eval mode, with its facts embedded. Compares no numbers."""

import contextlib
import ctypes
import dataclasses
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import config as fx_config

from deploy_kit.base.errors import ExportError, InputError
from deploy_kit.base.lazy import need
from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.graph import onnx_file
from deploy_kit.graph.passes import fold_constants
from deploy_kit.recipe import ExportTable
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BareInput, Preprocess
from deploy_kit.records.densenet import DenseNetSpec

if TYPE_CHECKING:
    import onnx_ir as ir

INPUT = "input"
# Facts that files of earlier versions do not state, and that hold there as in the paper.
_LATER = (
    "dense_order", "transition_order", "final_order", "feature_norm", "input_repeats", "hidden_eps", "stem_activation",
    "stem_slope", "outer_slope", "hidden_slope", "decoder",
)  # fmt: skip


def output_names(spec: DenseNetSpec) -> list[str]:
    """Name the outputs: ``logits``, or one for each of several heads, or ``features``."""
    return [head.name for head in spec.heads] or ["features"]


def write_onnx(
    network: DenseNet,
    preprocess: Preprocess | BareInput,
    table: ExportTable,
    file: Path,
    *,
    classes: tuple[str, ...] | None = None,
) -> "ir.Model":
    """Export in eval mode and embed what is known of the network; refuse a graph that still trains.

    Args:
        network: The network in eval mode.
        preprocess: How images become its input; embedded.
        table: Exporter, operator set and batch.
        file: The ONNX file to write.
        classes: Names of the classes; embedded where they are known.

    Returns:
        The graph as it was written.

    Raises:
        ExportError: torch cannot export it, or not to the operator set asked for.
        InputError: ONNX has no such operator set yet.
    """
    onnx = need("onnx", by="the export")
    if table.opset > (newest := onnx.defs.onnx_opset_version()):
        raise InputError(
            f"--opset {table.opset}: ONNX {onnx.__version__} has operator sets up to {newest}", hint="--opset 18"
        )
    # A dummy batch of 1 would be taken for a constant by the tracer where the batch is to stay open.
    batch = 2 if table.dynamic else table.batch
    dummy, names = torch.zeros(batch, *preprocess.shape), output_names(network.spec)
    try:
        with _quiet(), _without_cache(file.parent), _biased(network):
            if table.exporter == "dynamo":
                shapes = ({0: torch.export.Dim("N")},) if table.dynamic else None
                program = torch.onnx.export(
                    network,
                    (dummy,),
                    dynamo=True,
                    input_names=[INPUT],
                    output_names=names,
                    opset_version=table.opset,
                    optimize=False,  # what else there is to simplify, `simplify` does, pass by pass and verified
                    verbose=False,
                    dynamic_shapes=shapes,
                )
                assert program is not None
                model = program.model
            else:
                axes = {name: {0: "N"} for name in (INPUT, *names)} if table.dynamic else None
                torch.onnx.export(
                    network,
                    (dummy,),
                    str(file),
                    dynamo=False,
                    input_names=[INPUT],
                    output_names=names,
                    opset_version=table.opset,
                    dynamic_axes=axes,
                )
                model = onnx_file.load(file)
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(
            f"torch's {table.exporter} exporter failed: {error}", hint=f"try the other one: --exporter {other(table)}"
        ) from error
    # Other programs' converters take no biases that are computed, nor the chains that compute a shape.
    model = onnx_file.reread(model)  # with every shape, as `simplify` would read it: the folder computes by shapes
    fold_constants.apply(model)
    model.ir_version = min(model.ir_version or 10, 10)  # what ONNX Runtime 1.18 and later read
    onnx_file.embed(model, preprocess)
    model.metadata_props["deploykit.exporter"] = table.exporter
    model.metadata_props["deploykit.densenet"] = codec.canonical_json(_stated(network.spec))
    if classes is not None:
        model.metadata_props[onnx_file.CLASSES_KEY] = codec.canonical_json(classes)
    model.graph.name = "densenet"
    _forget_paths(model)
    verify_graph(model, table)
    onnx_file.save(model, file)
    return model


def _stated(spec: DenseNetSpec) -> dict[str, Any]:
    """Return a spec for the metadata, without later facts that hold as before: a file stays the same byte for byte."""
    stated: dict[str, Any] = codec.to_json(spec)
    usual = {field.name: field.default for field in dataclasses.fields(DenseNetSpec)}
    held = {name for name in _LATER if stated[name] == usual[name]}
    sources = [row for row in stated["sources"] if row[0] not in held]
    return {name: value for name, value in stated.items() if name not in held} | {"sources": sources}


def other(table: ExportTable) -> str:
    """Return the exporter that was not asked for."""
    return "torchscript" if table.exporter == "dynamo" else "dynamo"


def verify_graph(model: "ir.Model", table: ExportTable) -> None:
    """Refuse another operator set, and a node that still trains."""
    if onnx_file.opset(model) != table.opset:
        raise ExportError(
            f"asked for opset {table.opset}, the file has {onnx_file.opset(model)}",
            hint=f"torch's {table.exporter} exporter cannot write it: use --exporter {other(table)}, or --opset "
            f"{onnx_file.opset(model)}",
        )
    for node in model.graph:
        if node.op_type == "Dropout" or node.attributes.get_int("training_mode"):
            raise ExportError(f"node '{node.name}' ({node.op_type}) is in training mode")


def _forget_paths(model: "ir.Model") -> None:
    """Drop the exporter's notes on each node: stack traces with paths of the machine that exported."""
    for node in model.graph:
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
    model.graph.metadata_props.clear()


@contextlib.contextmanager
def _biased(model: torch.nn.Module) -> Iterator[None]:
    """Add a bias of zeros to 3-D convolutions while they are exported.

    Without one, onnxscript (0.7.2, `aten_conv3d`) writes a bias with two axes, which no runtime accepts.
    """
    bare = [part for part in model.modules() if isinstance(part, torch.nn.Conv3d) and part.bias is None]
    for part in bare:
        part.bias = torch.nn.Parameter(torch.zeros(part.out_channels), requires_grad=False)
    try:
        yield
    finally:
        for part in bare:
            part.bias = None


@contextlib.contextmanager
def _without_cache(folder: Path) -> Iterator[None]:
    """Let a folder that is there be torch.compile's cache, unless the user has named another.

    Loading the exporter makes the cache's folder in TMPDIR, and leaves it there (torch/_dynamo/package.py, 2.10 and
    later); nothing is kept in it.
    """
    name = "TORCHINDUCTOR_CACHE_DIR"
    stated = os.environ.setdefault(name, str(folder)) != str(folder)
    try:
        yield
    finally:
        if not stated:
            del os.environ[name]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch's exporters, Python and C++ alike: results alone go to standard output.

    The stack trace of each node, which no file keeps, is not taken either.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    traces = getattr(fx_config, "do_not_emit_stack_traces", False)  # torch 2.10 and later
    sys.stdout.flush()
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        fx_config.do_not_emit_stack_traces = True
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        fx_config.do_not_emit_stack_traces = traces
        ctypes.CDLL(None).fflush(None)  # what C++ still buffers belongs into the sink too
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
