"""ONNX → a typed network: parsing, counting of its layers by type, and optimization profiles of open inputs."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit.base.errors import BuildError, InputError
from deploy_kit.engines._nvidia import Flavour
from deploy_kit.engines._nvidia.options import Shapes, TensorRtOptions, shape_text

if TYPE_CHECKING:
    import tensorrt

_PROTOBUF_LIMIT = 2**31 - 1  # bytes of one message, by protobuf's own specification
DTYPE_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}
_COMPUTING = {"CONVOLUTION": "Conv", "MATRIX_MULTIPLY": "Gemm"}


def parse_network(trt: Any, flavour: Flavour, builder: "tensorrt.Builder", logger: Any, onnx_file: Path) -> Any:
    """Parse an ONNX file into a strongly typed network.

    Raises:
        InputError: The file is missing, or larger than protobuf allows.
        BuildError: The parser refuses the file; the message contains the parser's errors.
    """
    verify_onnx_size(onnx_file)
    flags = trt.NetworkDefinitionCreationFlag
    # Versions without the flag know strongly typed networks alone.
    typed = 1 << int(flags.STRONGLY_TYPED) if hasattr(flags, "STRONGLY_TYPED") else 0
    network: Any = builder.create_network(typed)
    parser: Any = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(onnx_file)):
        errors = _parser_errors(parser)
        raise BuildError(f"{onnx_file}: {flavour.package}'s parser refuses it:\n{errors}", hint=_hint(errors))
    return network


def verify_onnx_size(onnx_file: Path) -> None:
    """Refuse a file that no parser can read, before one tries.

    Raises:
        InputError: The file is missing, or 2 GiB or larger.
    """
    try:
        size = onnx_file.stat().st_size
    except OSError as error:
        raise InputError(f"{onnx_file}: cannot be read: {error.strerror}", hint="check the path") from error
    if size > _PROTOBUF_LIMIT:
        raise InputError(
            f"{onnx_file}: expected an ONNX file below 2 GiB (protobuf's limit), found {size / 2**30:.1f} GiB",
            hint="save its weights as external data: onnx.save(model, path, save_as_external_data=True)",
        )


def count_layers(network: Any) -> tuple[tuple[str, str, int], ...]:
    """Count the layers of a typed network by the type that they compute in, without constants.

    A convolution or product counts as int8 where both its operands come from DequantizeLinear: the network's own type
    there is that of the result, and the builder fuses the rest.

    Returns:
        (layer, dtype, number) for each pair that occurs.
    """
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producer = {output.name: layer.type.name for layer in layers for output in _outputs(layer)}
    counts: Counter[tuple[str, str]] = Counter()
    for layer in layers:
        kind = layer.type.name
        if kind == "CONSTANT" or not layer.num_outputs:
            continue
        dtype = DTYPE_NAMES.get(layer.get_output(0).dtype.name, layer.get_output(0).dtype.name.lower())
        if kind in _COMPUTING:
            operands = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
            if all(operand is not None and producer.get(operand.name) == "DEQUANTIZE" for operand in operands):
                dtype = "int8"
        counts[_COMPUTING.get(kind, kind.lower()), dtype] += 1
    return tuple((kind, dtype, n) for (kind, dtype), n in sorted(counts.items()))


def list_bindings(network: Any) -> tuple[tuple[str, str], ...]:
    """List the inputs and outputs of a network with their dtypes."""
    tensors = [("input", tensor) for tensor in _inputs(network)]
    tensors += [("output", network.get_output(index)) for index in range(network.num_outputs)]
    return tuple(
        (f"{role} '{tensor.name}'", DTYPE_NAMES.get(tensor.dtype.name, tensor.dtype.name.lower()))
        for role, tensor in tensors
    )


def add_profiles(
    builder: "tensorrt.Builder", network: Any, config: Any, options: TensorRtOptions, onnx_file: Path
) -> None:
    """Add the optimization profiles of open inputs to the builder's configuration.

    Raises:
        BuildError: An open input has no shapes, a fixed one has some, or the shapes do not fit the input.
    """
    inputs = {tensor.name: tuple(tensor.shape) for tensor in _inputs(network)}
    still_open = {name: shape for name, shape in inputs.items() if min(shape, default=0) < 0}
    if not options.profiles:
        for name, shape in still_open.items():
            # Before the build: the message can then hold flags that would build.
            raise _missing_shapes_error(onnx_file, name, shape)
    for shapes in options.profiles:
        _verify_shapes(onnx_file, inputs, still_open, shapes)
        profile: Any = builder.create_optimization_profile()  # takes any sequence for a shape
        for name in still_open:
            profile.set_shape(name, *(by_name[name] for by_name in shapes))
        config.add_optimization_profile(profile)


def _missing_shapes_error(onnx_file: Path, name: str, shape: tuple[int, ...]) -> BuildError:
    sample, most = (shape_text(tuple(side if side > 0 else n for side in shape)) for n in (1, 32))
    return BuildError(
        f"{onnx_file}: input '{name}' is open ({shape_text(shape)}) and no shapes were given",
        hint=f"give its range, e.g. --min-shapes {name}:{sample} --opt-shapes {name}:{sample} "
        f"--max-shapes {name}:{most}; or export with a fixed batch: --batch N",
    )


def _verify_shapes(onnx_file: Path, inputs: Shapes, still_open: Shapes, shapes: tuple[Shapes, Shapes, Shapes]) -> None:
    for name in {name for by_name in shapes for name in by_name}:
        if name not in inputs:
            raise BuildError(f"{onnx_file}: has no input '{name}'", hint="its inputs: " + ", ".join(inputs))
        if name not in still_open:
            raise BuildError(
                f"{onnx_file}: input '{name}' has the fixed shape {shape_text(inputs[name])}, and shapes were given",
                hint="leave the shapes out, or export with --dynamic",
            )
    for name, shape in still_open.items():
        rows = [by_name.get(name, ()) for by_name in shapes]
        if any(
            len(row) != len(shape) or any(s > 0 and s != r for s, r in zip(shape, row, strict=True)) for row in rows
        ):
            found = ", ".join(shape_text(row) or "nothing" for row in rows)
            raise BuildError(f"{onnx_file}: input '{name}': expected shapes like {shape_text(shape)}, found {found}")
        if not all(a <= b <= c for a, b, c in zip(*rows, strict=True)):
            found = " ≤ ".join(map(shape_text, rows))
            raise BuildError(f"{onnx_file}: input '{name}': expected min ≤ opt ≤ max, found {found}")


def _inputs(network: Any) -> Iterator[Any]:
    return (network.get_input(index) for index in range(network.num_inputs))


def _outputs(layer: Any) -> Iterator[Any]:
    return (layer.get_output(index) for index in range(layer.num_outputs))


def _parser_errors(parser: "tensorrt.OnnxParser") -> str:
    lines = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = f"node '{error.node_name()}' ({error.node_operator()}): " if error.node_name() else ""
        lines.append(f"{node}{error.desc().strip()}")
    return "\n".join(lines)


def _hint(errors: str) -> str:
    # Recognized by the parser's texts, which name the cause.
    if "zero point" in errors.lower() or "shiftIsAllZeros" in errors:
        return "it takes symmetric int8 only: deploykit quantize --int8 --target tensorrt"
    if "Int32" in errors and "DequantizeLinear" in errors:
        return "it takes no quantized biases: deploykit quantize --int8 --target tensorrt"
    if "Failed to import initializer" in errors:
        return "its weights are in a separate file, which is missing beside this one or cut off"
    if "Plugin not found" in errors or ("creator" in errors and "plugin" in errors.lower()):
        return "it has no such operator: replace it before export; plugins are not loaded"
    return ""
