"""Tests of the pass `cast_pixels_first`: the same bits, and no node but the Cast reads the pixels."""

import pytest
import rewriting
from pixel_graphs import frames, network, taking_pixels

from deploy_kit.graph import passes
from deploy_kit.graph.passes import cast_pixels_first


@pytest.mark.parametrize("simplified", [False, True], ids=["exported", "simplified"])
@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
def test_pixels_are_cast_before_they_are_moved(color: str, simplified: bool) -> None:
    model = taking_pixels(color)
    if simplified:
        passes.apply_passes(model, passes.default_passes())

    done = rewriting.rewrite(cast_pixels_first, model, frames(channels=1 if color == "gray" else 3))

    assert (done.outcome.fired, done.difference) == (1, 0)
    assert done.operators[:2] == ["Cast", "Transpose"]


def test_a_graph_that_takes_floats_is_left_alone() -> None:
    assert cast_pixels_first.apply(network()) == cast_pixels_first.Outcome(fired=0)


def test_pixels_that_are_an_output_too_stay_where_they_are() -> None:
    model = taking_pixels()
    model.graph.outputs.append(model.graph[0].outputs[0])

    assert cast_pixels_first.apply(model).refused == (("its pixels are read before they are floats", 1),)
