"""What a graph reads and gives, brought into normal form; the numbers that it computes stay by construction."""

import shlex
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, defs, helper, inliner, shape_inference

from deploy_kit.base.errors import InputError, nearest
from deploy_kit.base.plain_text import shell_word
from deploy_kit.graph import onnx_bounds
from deploy_kit.graph.adoption.refused import numpy_name, opset
from deploy_kit.graph.onnx_bounds import nodes_of

if TYPE_CHECKING:
    import onnx

    from deploy_kit.graph.adoption import Stated

_IR_NEWEST = 10  # ONNX Runtime 1.18 and later read it
_IR_ENOUGH = 8  # what torch writes; any from 4 on needs no weights among the inputs
_AGAIN = "export it again from the network itself"
_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})
_WHOLE = frozenset(
    {
        TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16,
        TensorProto.UINT32, TensorProto.INT32, TensorProto.UINT64, TensorProto.INT64,
    }
)  # fmt: skip
_UNINFERRED = frozenset({"GroupNormalization", "MeanVarianceNormalization"})
# What moves numbers and does not compute with them: it takes float32 as it takes integers.
_MOVING = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather"})


def without_functions(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Inline the functions that the file defines itself."""
    if not proto.functions:
        return proto
    n = len(proto.functions)
    usual = {(one.domain, one.name): one.attribute_proto for one in proto.functions}
    for body in (proto.graph, *proto.functions):
        _state_defaults(nodes_of(body), usual)
    try:
        inlined = inliner.inline_local_functions(proto, True)
    except RuntimeError as error:
        raise InputError(f"{path}: its functions cannot be inlined: {error}", hint="export it again") from error
    changes.append(f"{n} function{'s' * (n > 1)} of its own inlined")
    return inlined


def write_out(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Write norms whose shapes ONNX does not infer as the operators that define them."""
    norms = [node for node in nodes_of(proto.graph) if node.op_type in _UNINFERRED]
    if not norms:
        return proto
    kinds = sorted({node.op_type for node in norms})
    schemas = {kind: defs.get_schema(kind, opset(proto), "").attributes.values() for kind in kinds}
    _state_defaults(norms, {("", kind): [one.default_value for one in known] for kind, known in schemas.items()})
    typed = _names((*proto.graph.input, *proto.graph.value_info))
    proto.graph.value_info.extend(
        helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in proto.graph.initializer
        if tensor.name not in typed
    )
    try:
        written = inliner.inline_selected_functions(proto, [("", kind) for kind in kinds], False, True)
    except RuntimeError as error:
        raise InputError(f"{path}: {kinds[0]} cannot be written out: {error}", hint=_AGAIN) from error
    changes.append(f"{', '.join(kinds)} written out as the operators that define it")
    return written


def _state_defaults(
    nodes: "Iterable[onnx.NodeProto]", usual: "Mapping[tuple[str, str], Iterable[onnx.AttributeProto]]"
) -> None:
    """State at each node what it leaves to the defaults of what it calls: the inliner of onnx 1.23 drops them."""
    for node in nodes:
        stated = {one.name for one in node.attribute}
        values = usual.get((node.domain, node.op_type), ())
        node.attribute.extend(value for value in values if value.name and value.name not in stated)


def forget_domains(proto: "onnx.ModelProto") -> None:
    """Forget the operator sets of which no node is; a file without any is of the first set."""
    used = {node.domain for node in nodes_of(proto.graph)} - {""}
    stated = {entry.domain: entry.version for entry in proto.opset_import} | {"": opset(proto)}
    del proto.opset_import[:]
    proto.opset_import.extend(helper.make_opsetid(name, stated.get(name, 1)) for name in ("", *sorted(used)))


def drop_weights(proto: "onnx.ModelProto", changes: list[str]) -> None:
    """Take the weights, and what nothing reads, off the inputs."""
    weights = {tensor.name for tensor in proto.graph.initializer}
    weights |= {sparse.values.name for sparse in proto.graph.sparse_initializer}
    read = {name for node in nodes_of(proto.graph) for name in node.input} | _names(proto.graph.output)
    fed = [value for value in proto.graph.input if value.name not in weights]
    unread = [value.name for value in fed if value.name not in read]
    listed = len(proto.graph.input) - len(fed)
    if len(fed) > len(unread) and unread:
        changes.append(f"input{'s' * (len(unread) > 1)} that nothing reads left out: {', '.join(unread)}")
        fed = [value for value in fed if value.name in read]
    _replace(proto.graph.input, fed)
    if listed:
        changes.append(f"{listed} weights listed as inputs are constants now")
    proto.ir_version = proto.ir_version if proto.ir_version >= 4 else _IR_ENOUGH


def lower_ir_version(proto: "onnx.ModelProto", changes: list[str]) -> None:
    """Lower the IR version to one that the runtimes read; what later ones add, networks do not use."""
    if proto.ir_version > _IR_NEWEST:
        changes.append(f"IR version {proto.ir_version} → {_IR_NEWEST}, which ONNX Runtime 1.18 and later read")
        proto.ir_version = _IR_NEWEST
        for node in nodes_of(proto.graph):
            node.ClearField("device_configurations")
        proto.ClearField("configuration")


def name_nodes_apart(proto: "onnx.ModelProto", changes: list[str]) -> None:
    """Give nodes that share a name names of their own: ONNX allows it, ONNX Runtime does not."""
    seen: set[str] = set()
    n = 0
    for node in nodes_of(proto.graph):
        if node.name in seen:
            node.name, n = "", n + 1
        seen |= {node.name} - {""}
    if n:
        changes.append(f"{n} nodes under the names of others have none now")


def choose_output(proto: "onnx.ModelProto", wanted: str | None, path: Path, changes: list[str]) -> None:
    """Keep one output: the only one, or the one that is named; a value within the graph can be named as well."""
    _replace(proto.graph.output, list({value.name: value for value in proto.graph.output}.values()))
    names = [value.name for value in proto.graph.output]
    made = [name for node in proto.graph.node for name in node.output if name]
    if wanted is None and len(names) != 1 and made:
        raise InputError(
            f"{path}: expected one output, found {len(names)}" + (f": {', '.join(names)}" if names else ""),
            hint=f"choose one: deploykit export {shell_word(path)} --output {shlex.quote((names or made[-1:])[0])}",
        )
    wanted = wanted or "".join(names[:1])
    if wanted not in {*made, *names}:
        raise InputError(f"{path}: no output is called '{wanted}'", hint=nearest(wanted, names) or _AGAIN)
    if wanted not in made:
        raise InputError(f"{path}: output '{wanted}' is an input or a weight: no operator computes it", hint=_AGAIN)
    if names == [wanted]:
        return
    kept = [value for value in proto.graph.output if value.name == wanted]
    _replace(proto.graph.output, kept or [helper.make_empty_tensor_value_info(wanted)])
    _remove_unused(proto)
    others = [name for name in names if name != wanted]
    left_out = f", left out: {', '.join(others)}" if others else ""
    changes.append(f"output '{wanted}' kept{left_out}")


def size_input(proto: "onnx.ModelProto", stated: "Stated", path: Path, changes: list[str]) -> None:
    """Set the input to the shape that is stated, where the file leaves it open; the batch may stay open.

    Raises:
        InputError: There are several inputs or none, or its sides are open and nobody names them, or fixed to others.
    """
    if len(proto.graph.input) != 1:
        found = ", ".join(value.name for value in proto.graph.input) or "none"
        raise InputError(
            f"{path}: expected one input, found {len(proto.graph.input)}: {found}",
            hint="export the network that reads images alone",
        )
    value = proto.graph.input[0]
    for end in (value, *proto.graph.output):
        if (form := end.type.WhichOneof("value")) not in (None, "tensor_type"):
            raise InputError(
                f"{path}: '{end.name}' is of ONNX's type {form.removesuffix('_type')}, expected a tensor",
                hint="export the network without what makes it, as a classifier's ZipMap; or --output takes a value "
                "within it",
            )
    kind = value.type.tensor_type
    wanted = stated.shape
    if wanted is None and stated.sides is not None:
        wanted = (_channels(proto, value, path), *stated.sides)
    if not kind.HasField("shape") and wanted is not None:
        for _ in range(len(wanted) + 1):
            kind.shape.dim.add()
    dims = kind.shape.dim
    given = [dim.dim_value if dim.dim_value > 0 else dim.dim_param or "?" for dim in dims]
    if dims and not isinstance(given[0], int) and dims[0].HasField("dim_value"):
        changes.append(f"batch {dims[0].dim_value} → open")
    if dims and not isinstance(given[0], int) and not dims[0].dim_param:
        dims[0].dim_param = "N"
    _verify_channels(proto, value, path)
    still_open = [at for at, dim in enumerate(given[1:], 1) if not isinstance(dim, int)]
    if not dims or (still_open and wanted is None):
        sides = "x".join(["224"] * max(len(given) - 2, 1)) if given else "224x224"
        raise InputError(
            f"{path}: the file does not say how images become its input, and its size is open: {value.name} {given}",
            hint=f"name it: --input {sides}, for images with --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225, or "
            "'source.preprocess' in a recipe",
        )
    if wanted is None:
        return
    fits = len(wanted) == len(given) - 1 and all(
        not isinstance(dim, int) or dim == side for dim, side in zip(given[1:], wanted, strict=False)
    )
    if not fits and stated.shape is None:
        raise InputError(
            f"{path}: its input is fixed to {given}, and --input {'x'.join(map(str, stated.sides or ()))} cannot "
            "change it",
            hint=f"leave --input out, or say --input {'x'.join(map(str, given[2:]))}; another size is exported from "
            "the model itself",
        )
    if fits and still_open:
        for dim, side in zip(list(dims)[1:], wanted, strict=True):
            dim.dim_value = side
        changes.append(f"open input {given} → {[given[0], *wanted]}")


def feed_floats(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> None:
    """Let an input of integers that is cast before anything is computed take the same numbers as float32.

    Raises:
        InputError: The graph computes with the integers themselves.
    """
    value = proto.graph.input[0]
    kind = value.type.tensor_type.elem_type
    if kind in _FLOATS:
        return
    said = numpy_name(kind)
    inside = {value.name}
    for node in proto.graph.node:
        if not inside & set(node.input) or node.op_type == "Shape":
            continue
        if node.op_type in _MOVING and node.input[0] in inside and not inside & set(node.input[1:]):
            inside |= set(node.output)
        elif node.op_type != "Cast" or kind not in _WHOLE or _target(node) not in _FLOATS:
            raise InputError(
                f"{path}: its input '{value.name}' is {said}, and {node.op_type} '{node.name or node.output[0]}' "
                "computes with it before it is cast to float",
                hint="export it with a float32 input, or with the cast in front of everything else",
            )
    value.type.tensor_type.elem_type = TensorProto.FLOAT
    top = 255 if kind == TensorProto.UINT8 else 0
    scale = f": pixels of 0 to {top} are --mean 0,0,0 --std {1 / top:.9f},{1 / top:.9f},{1 / top:.9f}" if top else ""
    changes.append(f"input {value.name}: {said} → float32 with the same whole numbers, its Cast does nothing{scale}")


def infer_anew(proto: "onnx.ModelProto", path: Path, changes: list[str]) -> "onnx.ModelProto":
    """Forget the shapes that the file records, which may be of another size, and infer all from the input.

    Raises:
        InputError: The operators do not fit the input or each other.
    """
    recorded = {value.name: _shape(value) for value in (*proto.graph.value_info, *proto.graph.output)}
    del proto.graph.value_info[:]
    for output in proto.graph.output:
        output.type.tensor_type.ClearField("shape")
    value = proto.graph.input[0]
    try:
        inferred = shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        raise InputError(
            f"{path}: its operators do not fit the input {value.name} {list(_shape(value) or ())}: "
            f"{' '.join(str(error).split())[:300]}",
            hint="name the size that it was trained for: --input, or export it again",
        ) from error
    onnx_bounds.verify_values(inferred, path)
    found = {value.name: _shape(value) for value in (*inferred.graph.value_info, *inferred.graph.output)}
    stale = [name for name, shape in recorded.items() if _contradict(shape, found.get(name))]
    if stale:
        changes.append(f"{len(stale)} recorded shapes that contradict the input inferred anew, first '{stale[0]}'")
    return inferred


def consumers(proto: "onnx.ModelProto", name: str) -> "list[onnx.NodeProto]":
    """List the nodes of the main graph that read a value."""
    return [node for node in proto.graph.node if name in node.input]


def _channels(proto: "onnx.ModelProto", value: "onnx.ValueInfoProto", path: Path) -> int:
    """Return the channels of the input: as the file says, or as many as its first convolution reads."""
    dims = value.type.tensor_type.shape.dim
    if len(dims) > 1 and dims[1].dim_value > 0:
        return int(dims[1].dim_value)
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    pending, seen = deque([value.name]), {value.name}
    while pending:
        for node in consumers(proto, pending.popleft()):
            if node.op_type == "Conv" and len(shapes.get(node.input[1], ())) > 2:
                groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
                return int(shapes[node.input[1]][1] * groups)
            fresh = set(node.output) - seen
            seen |= fresh
            pending.extend(fresh)
    raise InputError(
        f"{path}: it leaves the channels of its input open",
        hint="state the preprocessing, which has them: --input 224x224 --mean 0.485,0.456,0.406 "
        "--std 0.229,0.224,0.225",
    )


def _verify_channels(proto: "onnx.ModelProto", value: "onnx.ValueInfoProto", path: Path) -> None:
    """Refuse an input of other channels than a convolution reads that it goes to directly; ONNX's inference does not.

    Raises:
        InputError: They differ.
    """
    dims = value.type.tensor_type.shape.dim
    shapes = {tensor.name: list(tensor.dims) for tensor in proto.graph.initializer}
    for node in consumers(proto, value.name):
        if node.op_type == "Conv" and len(shapes.get(node.input[1], ())) > 2 and len(dims) > 1:
            groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
            reads = int(shapes[node.input[1]][1] * groups)
            if dims[1].dim_value > 0 and dims[1].dim_value != reads:
                raise InputError(
                    f"{path}: its input '{value.name}' {list(_shape(value) or ())} has {dims[1].dim_value} channels, "
                    f"Conv '{node.name or node.output[0]}' reads {reads}",
                    hint="no program can compute it as it stands: export it again, with an input N×C×H×W",
                )


def _remove_unused(proto: "onnx.ModelProto") -> None:
    """Remove the nodes and weights that no output depends on."""
    needed, kept = _names(proto.graph.output), []
    for node in reversed(proto.graph.node):
        if needed & set(node.output):
            kept.append(node)
            inner = (entry for entry in node.attribute if entry.HasField("g") or entry.graphs)
            graphs = [
                graph for entry in inner for graph in (*([entry.g] if entry.HasField("g") else ()), *entry.graphs)
            ]
            needed |= set(node.input) | {name for graph in graphs for one in nodes_of(graph) for name in one.input}
            needed |= {name for graph in graphs for name in _names(graph.output)}
    _replace(proto.graph.node, kept[::-1])
    _replace(proto.graph.initializer, [tensor for tensor in proto.graph.initializer if tensor.name in needed])


def _target(node: "onnx.NodeProto") -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == "to"), 0)


def _names(values: "Iterable[onnx.ValueInfoProto]") -> set[str]:
    return {value.name for value in values}


def _shape(value: "onnx.ValueInfoProto") -> tuple[int, ...] | None:
    """Return the shape of a value, 0 for an open axis; None where it has none."""
    kind = value.type.tensor_type
    return tuple(max(dim.dim_value, 0) for dim in kind.shape.dim) if kind.HasField("shape") else None


def _contradict(recorded: tuple[int, ...] | None, found: tuple[int, ...] | None) -> bool:
    if recorded is None or found is None:
        return False
    pairs = zip(recorded, found, strict=False)
    return len(recorded) != len(found) or any(a and b and a != b for a, b in pairs)


def _replace(field: Any, entries: "list[Any]") -> None:
    """Replace the entries of a repeated field."""
    copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
    del field[:]
    field.extend(copies)
