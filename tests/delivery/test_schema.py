"""The published JSON Schema is that of the records, and manifests keep it."""

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest

from deploy_kit.delivery.schema import manifest_schema

pytest_plugins = ["tiny_line", "tiny_bundles"]
PUBLISHED = Path(__file__).parents[2] / "docs" / "manifest.schema.json"


def test_the_published_schema_is_that_of_the_records() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == manifest_schema(), (
        "write json.dumps(manifest_schema(), indent=1, ensure_ascii=False) to docs/manifest.schema.json"
    )
    jsonschema.Draft202012Validator.check_schema(manifest_schema())


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_manifests_keep_the_schema_and_spoiled_ones_do_not(packed: Callable[..., Path], engine: str) -> None:
    manifest = json.loads((packed("int8", engine) / "manifest.json").read_text(encoding="utf-8"))
    validator = jsonschema.Draft202012Validator(manifest_schema())
    validator.validate(manifest)

    for spoiled in ({"schema_version": 2}, {"classes": [1]}, {"scores": "argmax"}, {"more": 1}, {"golden": {}}):
        assert not validator.is_valid({**manifest, **spoiled})
