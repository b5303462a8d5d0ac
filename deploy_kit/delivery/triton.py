"""A model repository for Triton Inference Server: ``config.pbtxt`` from the real inputs and outputs, and labels.

The server's own preprocessing is none: clients send what the engine takes, the normalized tensor or frames. Source of
the fields: Triton's ``model_config.proto``.
"""

from deploy_kit.base.errors import InputError
from deploy_kit.records.artifacts import TensorSpec

LABELS = "labels.txt"
_DTYPES = {"float": "TYPE_FP32", "float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "uint8": "TYPE_UINT8"}


def config(name: str, backend: str, inputs: TensorSpec, outputs: TensorSpec, *, file: str, labelled: bool) -> str:
    """Write ``config.pbtxt``.

    A batch that the engine leaves open becomes `max_batch_size` 32 with dynamic batching; with a fixed batch the first
    axis is part of the shape, as Triton asks for it.

    Args:
        name: Name of the model: the folder that the file lies in.
        backend: Lines that name the backend.
        inputs: The engine's input.
        outputs: The engine's output.
        file: Name of the engine's main file in the version's folder.
        labelled: Whether `LABELS` lies beside it.
    """
    is_open = not isinstance(inputs.shape[0], int)
    batch = ["max_batch_size: 32", "dynamic_batching { }"] if is_open else ["max_batch_size: 0"]
    return "\n".join(
        [
            f'name: "{name}"',
            backend,
            f'default_model_filename: "{file}"',
            *batch,
            *_tensor("input", inputs, is_open),
            *_tensor("output", outputs, is_open, f'label_filename: "{LABELS}"' if labelled else ""),
            "",
        ]
    )


def _tensor(kind: str, spec: TensorSpec, is_open: bool, more: str = "") -> list[str]:
    if spec.dtype not in _DTYPES:
        raise InputError(f"triton: {kind} '{spec.name}' is {spec.dtype}, which Triton has no type for here")
    dims = ", ".join(str(d) if isinstance(d, int) else "-1" for d in spec.shape[1 if is_open else 0 :])
    lines = [f"name: {quoted(spec.name)}", f"data_type: {_DTYPES[spec.dtype]}", f"dims: [ {dims} ]", more]
    return [f"{kind} [", "  {", *(f"    {line}" for line in lines if line), "  }", "]"]


def quoted(text: str) -> str:
    """Write a string as protobuf's text format and C++ both read it: bytes outside of plain ASCII as octal escapes."""
    plain = (chr(b) if 32 <= b < 127 and b not in b'"\\?' else f"\\{b:03o}" for b in text.encode())
    return f'"{"".join(plain)}"'
