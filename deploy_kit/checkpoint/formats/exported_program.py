"""A `torch.export` archive (.pt2) → weights and the facts of its graph. Plain JSON and raw numbers; nothing is run.

Source of the layouts: torch/export/pt2_archive/_package.py and torch/_export/serde/schema.py, torch 2.13; before 2.8
the archive held a JSON program beside two `torch.save` files.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.base.text_files import unique_keys
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.facts import ArchitectureFacts, Source
from deploy_kit.checkpoint.formats import aten, stated_graph
from deploy_kit.checkpoint.formats.forward.exported_graph import GUARDS, ExportedForward
from deploy_kit.checkpoint.formats.limits import ReadLimits, damaged
from deploy_kit.checkpoint.formats.pickled import torch_file
from deploy_kit.checkpoint.formats.pickled.inert_values import Unreadable
from deploy_kit.checkpoint.formats.pickled.torch_tensors import Storage, view
from deploy_kit.checkpoint.formats.zip_archive import Archive, open_archive

_SOURCE = Source("file", "torch.export graph")
_WEIGHTS, _MODEL, _OLD_MODEL, _OLD_WEIGHTS = (
    "data/weights/model_weights_config.json", "models/model.json",
    "serialized_exported_program.json", "serialized_state_dict.pt",
)  # fmt: skip
# Numbers of `ScalarType` in schema.py.
_DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
_CONSTANTS = "data/constants/model_constants_config.json"
_STRIDED = 7
_MAX_JSON = 64 << 20
_WRONG = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError)


def is_exported(names: tuple[str, ...]) -> bool:
    """Return whether an archive with these members is one."""
    return any(name.endswith((f"/{_MODEL}", _OLD_MODEL)) or name == _MODEL for name in names)


def read_exported_program(archive: Archive, budget: ReadLimits) -> Contents:
    """Read a torch.export archive.

    Raises:
        CheckpointError: Damaged, or of a layout this version does not know.
    """
    model = next(name for name in archive.names if name.endswith((_MODEL, _OLD_MODEL)))
    home = model.removesuffix(_MODEL).removesuffix(_OLD_MODEL)
    program = _json(archive, model)
    try:
        tensors = dict(_old_weights(archive, home, budget) if _OLD_MODEL in model else _weights(archive, home, budget))
        graph = program["graph_module"]["graph"]
    except _WRONG as error:
        raise damaged(f"its program makes no sense ({type(error).__name__})") from error
    if not tensors:
        raise CheckpointError("a torch.export archive without weights")
    facts = _facts(graph)
    try:
        known = {**dict(_weights(archive, home, budget, _CONSTANTS)), **tensors} if _OLD_MODEL not in model else tensors
        forward = ExportedForward(program["graph_module"], known)
    except _WRONG as error:
        raise damaged(f"its graph makes no sense ({type(error).__name__})") from error
    remarks = (
        ()
        if facts != ArchitectureFacts()
        else ("its graph is written in a way this version does not read: it states no facts",)
    )
    return Contents(kind="torch.export", tensors=tensors, facts=facts, remarks=remarks, forward=forward)


def _json(archive: Archive, name: str) -> Any:
    if archive.size(name) > _MAX_JSON:
        raise CheckpointError(f"refused: '{name}' inside it has {archive.size(name):,} bytes")
    try:
        return json.loads(bytes(archive.read(name)), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise damaged(f"'{name}' inside it is not JSON: {error}") from error


def _weights(archive: Archive, home: str, budget: ReadLimits, config: str = _WEIGHTS) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of a table: the weights, or constants and buffers that are no part of the state dict."""
    rows: dict[str, bytearray] = {}
    if config != _WEIGHTS and home + config not in archive.names:
        return
    for name, entry in _json(archive, home + config)["config"].items():
        member = f"{home}{config.rpartition('/')[0]}/{entry['path_name']}"
        if entry["use_pickle"] or entry["tensor_meta"]["layout"] != _STRIDED:
            raise CheckpointError(f"'{name}' is no plain tensor; plain floating-point weights are expected")
        if member not in rows:
            rows[member] = archive.read(member)
        yield name, _tensor(name, rows[member], entry["tensor_meta"], budget)


def _tensor(name: str, data: bytearray, meta: Mapping[str, Any], budget: ReadLimits) -> Tensor:
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise CheckpointError(f"'{name}' is of a type this version does not read (number {meta['dtype']})")
    size, stride = ([axis["as_int"] for axis in meta[key]] for key in ("sizes", "strides"))
    whole = len(data) // dtype.itemsize
    numbers = torch.frombuffer(data, dtype=dtype, count=whole) if whole else torch.empty(0, dtype=dtype)
    tensor = view(Storage(numbers), meta["storage_offset"]["as_int"], size, stride, budget)
    assert not isinstance(tensor, Unreadable)
    if math.prod(size) * dtype.itemsize > len(data):
        raise damaged(f"'{name}' is larger than its record")
    return tensor


def _old_weights(archive: Archive, home: str, budget: ReadLimits) -> Iterator[tuple[str, Tensor]]:
    with open_archive(io.BytesIO(archive.read(home + _OLD_WEIGHTS)), budget) as inner:
        for name, value in torch_file.read_zip(inner, budget).items():
            if not isinstance(value, Tensor):
                raise CheckpointError(f"'{name}' is no plain tensor; plain floating-point weights are expected")
            yield str(name), value


def _facts(graph: Any) -> ArchitectureFacts:
    """Read the graph's facts; a graph that is written otherwise than expected states none."""
    try:
        return stated_graph.facts(_nodes(graph), _SOURCE)
    except _WRONG:
        return ArchitectureFacts()


def _nodes(graph: Mapping[str, Any]) -> list[stated_graph.Node]:
    """Turn the graph's JSON into nodes; its weights come as inputs whose names begin with p_ or b_."""
    nodes: list[stated_graph.Node] = []
    places: dict[str, int] = {}
    constants = {name for entry in graph["inputs"] for name in _names(entry) if name[:2] in ("p_", "b_", "c_")}
    for entry in graph["inputs"]:
        for name in _names(entry):
            if name not in constants:
                places[name] = len(nodes)
                nodes.append(stated_graph.Node(op="input"))
    for entry in graph["nodes"]:
        if _operator(entry["target"]) in aten.SIZES or any(guard in entry["target"] for guard in GUARDS):
            continue
        arguments = [argument["arg"] for argument in entry["inputs"]]
        reads = tuple(places[name] for argument in arguments for name in _names(argument) if name in places)
        values = [_value(one, graph["tensor_values"]) for one in arguments]
        nodes.append(aten.node(_operator(entry["target"]), values, reads))
        for output in entry["outputs"]:
            places.update(dict.fromkeys(_names(output), len(nodes) - 1))
    return nodes


def _operator(target: str) -> str:
    """Return ``conv2d`` of ``torch.ops.aten.conv2d.default``, whatever its namespace; of ``_operator.mul`` ``mul``."""
    parts = target.split(".")
    return parts[3] if target.startswith("torch.ops.") and len(parts) > 3 else parts[-1]


def _names(argument: Mapping[str, Any]) -> list[str]:
    if "as_tensor" in argument:
        return [argument["as_tensor"]["name"]]
    return [entry["name"] for entry in argument.get("as_tensors", [])]


def _value(argument: Mapping[str, Any], tensors: Mapping[str, Any]) -> Any:
    """Return a number or a list of them, a weight's shape as a tuple, None for all else."""
    for name in _names(argument):
        if name[:2] in ("p_", "b_"):
            return tuple(axis["as_int"] for axis in tensors[name]["sizes"])
    return next((argument[key] for key in ("as_int", "as_float", "as_ints") if key in argument), None)
