"""Strict YAML: 1e-5 is a number, and a key that is given twice is an error."""

import re
from typing import Any

import yaml


class StrictLoader(yaml.SafeLoader):
    """Safe YAML that reads 1e-5 as a number (YAML 1.2; PyYAML expects 1.0e-5) and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        doubled = next((key for key in keys if keys.count(key) > 1), None)
        if doubled is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key '{doubled}' is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)
