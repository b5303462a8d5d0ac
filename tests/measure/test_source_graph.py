"""The graph that an engine was built from: found by its hash, whichever stage wrote it."""

from typing import TYPE_CHECKING

from deploy_kit.measure.source_graph import source_graph
from deploy_kit.records.artifacts import Artifact

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def test_the_graph_an_engine_was_built_from_is_found(line: "Line") -> None:
    for variant in ("fp32", "int8"):
        found = source_graph(line.built(variant, "onnxruntime"), line.store)

        assert isinstance(found, Artifact)
        assert found.sha256 == line.graph(variant).sha256


def test_a_graph_that_is_gone_is_not_found(line: "Line") -> None:
    engine = Artifact(**vars(line.built("fp32", "onnxruntime")) | {"parent": "0" * 64})

    assert source_graph(engine, line.store) is None
