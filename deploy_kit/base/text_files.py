"""YAML and JSON files that anybody may have written, read within bounds of bytes, depth, size and time.

YAML is read as strictly as recipes need it: ``1e-5`` is a number (YAML 1.2; PyYAML expects ``1.0e-5``), and a key given
twice is an error. Anchors may be used, and count as often as they are used.
"""

import json
import os
import re
import select
import stat
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit.base.errors import InputError, RecipeError
from deploy_kit.base.plain_text import printable, shown

if TYPE_CHECKING:
    import yaml

_YAML_BYTES, _JSON_BYTES = 1 << 20, 1 << 29
_DEPTH, _NODES, _NUMBER, _SHOWN = 50, 20_000, 300, 40
_NO_JSON = frozenset({"timestamp", "binary", "set", "omap", "pairs"})
_SILENCE_S, _PIPE_S = 10.0, 60.0


def read_text(path: Path, most_bytes: int) -> str:
    """Read a UTF-8 text file; also from a pipe that somebody writes to.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It cannot be read, is too large, is not UTF-8, or is a pipe that nothing comes from.
    """
    try:
        data = _read_bytes(path, most_bytes)
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected text in UTF-8, found the byte {data[error.start]:#04x}") from error
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise InputError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _read_bytes(path: Path, most_bytes: int) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        endless = not stat.S_ISREG(os.fstat(descriptor).st_mode)
        data, until = bytearray(), time.monotonic() + _PIPE_S
        while len(data) <= most_bytes:
            wait_s = min(_SILENCE_S, until - time.monotonic())
            if endless and (wait_s <= 0 or not select.select([descriptor], [], [], wait_s)[0]):
                raise InputError(f"{path}: a pipe that does not end: waited for {_SILENCE_S:g} s", hint="give a file")
            piece = os.read(descriptor, 1 << 20)
            if not piece:
                return bytes(data)
            data += piece
    finally:
        os.close(descriptor)
    raise InputError(f"{path}: expected at most {most_bytes:,} bytes, found more")


def verify_utf8(path: Path, rather: str) -> None:
    """Refuse a path whose bytes are no UTF-8, where native libraries are to read or write below it: they take no other.

    Args:
        path: The path.
        rather: What to do instead, for the hint.

    Raises:
        InputError: Its bytes are none.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}: expected a path in UTF-8, as native libraries take no other", hint=f"rename it (mv), or {rather}"
        ) from error


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It cannot be read, is too large, or is not JSON.
    """
    text = read_text(path, _JSON_BYTES)
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except RecursionError as error:
        raise InputError(f"{path}: nested too deeply for JSON that deploykit writes") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs, as `json.loads` hands them to its ``object_pairs_hook``.

    Raises:
        ValueError: A key occurs twice: two readers of the file may take different values.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in found if keys.count(key) > 1))} occurs twice")
    return found


def read_yaml(path: Path) -> Any:
    """Read a YAML file of one document: tables, lists, texts, numbers and null.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It cannot be read or is too large.
        RecipeError: As `parse_yaml`.
    """
    return parse_yaml(read_text(path, _YAML_BYTES), path)


def parse_yaml(text: str, where: Path | str) -> Any:
    """Read YAML of one document from a text; `where` names it in messages.

    Raises:
        RecipeError: It is not YAML, is nested too deeply, contains itself, or grows too large by its anchors.
    """
    import yaml

    try:
        loader = _loader()(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _verify_size(node)
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {printable(str(error))}", hint="correct the line it names") from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {error}", hint=error.hint) from error
    except (ValueError, OverflowError) as error:  # a date that does not exist, a number of 5,000 digits
        raise RecipeError(f"{where}: not YAML: {error}", hint="put texts that look like numbers in quotes") from error


def _verify_size(root: "yaml.Node") -> None:
    """Refuse a document whose anchors nest or grow without measure: a node counts as often as it is used."""
    import yaml

    known: dict[int, tuple[int, int]] = {}

    def measured(node: yaml.Node, depth: int) -> tuple[int, int]:
        """Return the number of values in a node, and its levels."""
        if id(node) not in known and depth <= _DEPTH:
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            size, levels = 1, 0
            for child in children:
                below = measured(child, depth + 1)
                size, levels = size + below[0], max(levels, below[1] + 1)
                if size > _NODES:
                    raise RecipeError(f"expected at most {_NODES:,} values, found more; anchors count at each use")
            known[id(node)] = size, levels
        if depth > _DEPTH or depth + known[id(node)][1] > _DEPTH:
            raise RecipeError(f"expected at most {_DEPTH} levels, found more, or an anchor that contains itself")
        return known[id(node)]

    measured(root, 0)


def _loader() -> "type[yaml.SafeLoader]":
    import yaml

    class Loader(yaml.SafeLoader):
        depth = nodes = 0

        def compose_node(self, parent: Any, index: Any) -> Any:
            self.depth, self.nodes = self.depth + 1, self.nodes + 1
            if self.depth > _DEPTH:
                raise RecipeError(f"expected at most {_DEPTH} levels, found more")
            if self.nodes > _NODES:
                raise RecipeError(f"expected at most {_NODES:,} values, found more")
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            kind = node.tag.removeprefix("tag:yaml.org,2002:")
            if kind in _NO_JSON:
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"a {kind}, expected tables, lists, texts and numbers; put texts in quotes",
                    node.start_mark,
                )
            return super().construct_object(node, deep)

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
            doubled = next((key for key, n in keys.items() if n > 1), None)
            if doubled is not None:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{doubled}' is given twice", node.start_mark
                )
            return super().construct_mapping(node, deep)

        def construct_scalar(self, node: Any) -> Any:
            # 1:00:00… is a number to the base 60 in YAML 1.1, which takes the square of its length.
            if len(node.value) > _NUMBER and not node.tag.endswith(":str"):
                raise yaml.constructor.ConstructorError(
                    None, None, f"a number of {len(node.value):,} characters", node.start_mark
                )
            # 010 is 8 in YAML 1.1 and 10 in 1.2, 1:30 is 90 or a text, 1_000 is 1000 or a text.
            if node.tag.endswith((":int", ":float")) and re.fullmatch(r"[-+]?0[0-9_]+|.*[:_].*", node.value):
                raise yaml.constructor.ConstructorError(
                    None,
                    None,
                    f"'{node.value[:_SHOWN]}' is one number for some readers and another for others",
                    node.start_mark,
                )
            return super().construct_scalar(node)

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
    )
    return Loader
