"""What an equalized file says of its own numbers: they turn back into those of the float graph."""

import numpy as np
import onnx_ir as ir
import pytest
from dense_graphs import Sketch, planned, run

from deploy_kit.base.errors import InputError
from deploy_kit.graph import channel_affine
from deploy_kit.graph.channel_affine import Affine


def empty() -> ir.Model:
    return ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 18}), ir_version=10)


def test_what_was_noted_is_read_back() -> None:
    model = empty()

    channel_affine.record_affines(model, {"a": Affine(r=np.array([2.0, 0.5]), m=np.array([1.0, -3.0]))})

    assert channel_affine.affines_of(model)["a"].r.tolist() == [2.0, 0.5]
    assert channel_affine.affines_of(model)["a"].m.tolist() == [1.0, -3.0]


def test_two_rewrites_are_one() -> None:
    model, x = empty(), np.array([5.0])
    first, second = Affine(r=np.array([2.0]), m=np.array([1.0])), Affine(r=np.array([4.0]), m=np.array([-0.5]))

    channel_affine.record_affines(model, {"a": first})
    channel_affine.record_affines(model, {"a": second})

    assert channel_affine.affines_of(model)["a"].apply(second.inverse(first.inverse(x))) == x


def test_a_graph_that_was_never_rewritten_notes_nothing() -> None:
    assert channel_affine.affines_of(empty()) == {}


@pytest.mark.parametrize("text", ["no json", "[1]", '{"a": "no base64!"}', '{"a": "AAAA"}'])
def test_units_that_cannot_be_read_are_refused(text: str) -> None:
    model = empty()
    model.metadata_props[channel_affine.UNITS_KEY] = text

    with pytest.raises(InputError, match=r"metadata 'deploykit\.units' is no table of units"):
        channel_affine.affines_of(model)


def test_numbers_of_an_equalized_graph_turn_back_into_those_of_the_float_graph() -> None:
    sketch = Sketch()
    x = sketch.images(8)
    logits = sketch.network()
    before, after = sketch.model(logits), planned(sketch.model(logits), x).model
    noted = {name: by for name, by in channel_affine.affines_of(after).items() if name in _outputs(before)}

    wanted, found = _observed(before, tuple(noted), x), _observed(after, tuple(noted), x)

    assert len(noted) == 5  # the stem, and of both layers the bottleneck and the new maps
    for name, by in noted.items():
        restored = by.apply(found[name].transpose(0, 2, 3, 1))
        np.testing.assert_allclose(restored, wanted[name].transpose(0, 2, 3, 1), atol=1e-4)
        assert not np.allclose(found[name], wanted[name], atol=0.1)  # it was in other units


def _outputs(model: ir.Model) -> set[str]:
    return {str(value.name) for node in model.graph for value in node.outputs}


def _observed(model: ir.Model, names: tuple[str, ...], x: np.ndarray) -> dict[str, np.ndarray]:
    values = [value for node in model.graph for value in node.outputs if value.name in names]
    model.graph.outputs.extend(values)
    return dict(zip([value.name for value in values], run(model, x)[1:], strict=True))
