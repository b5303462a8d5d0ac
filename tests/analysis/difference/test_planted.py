"""Faults planted into one layer of a file: each is found and named by its coordinate."""

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from planted import Find, change, maker, weights_of

from deploy_kit.store import Store

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from planted import Forms

pytest_plugins = ["small_forms"]

FIRST, SECOND = "denseblock1.denselayer3.conv1", "denseblock1.denselayer3.conv2"
at_both = pytest.mark.parametrize("at", [FIRST, SECOND])
int8 = pytest.mark.parametrize("form", ["portable", "depthwise", "everything", "ort"])


@at_both
@int8
def test_scale_of_weights(form: str, at: str, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        change(proto, weights_of(proto, find(at))[1], lambda scale: 4 * scale)

    assert forms.difference(forms.file("simplified"), forms.faulty(form, fault), store).part == at


def test_scale_of_weights_behind_norms(forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        change(proto, weights_of(proto, find(FIRST))[1], lambda scale: scale / 4)

    assert forms.difference("checkpoint", forms.faulty("tensorrt", fault), store).part == FIRST


@pytest.mark.parametrize("form", ["portable", "ort"])
def test_scale_of_activations(form: str, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        restore = maker(proto, find(SECOND).input[0])
        change(proto, restore.input[1], lambda scale: scale / 4)

    assert forms.difference(forms.file("simplified"), forms.faulty(form, fault), store).part == FIRST


def test_scale_of_a_whole_block_shows_where_the_block_begins(forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        quantize = next(node for node in proto.graph.node if find(SECOND).output[0] in node.input)
        change(proto, quantize.input[1], lambda scale: scale / 4)

    assert forms.difference("checkpoint", forms.faulty("portable", fault), store).part == "stem"


@at_both
@pytest.mark.parametrize("form", ["simplified", "portable", "tensorrt", "ort"])
def test_dead_channel(form: str, at: str, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        def without_a_row(weights: np.ndarray) -> np.ndarray:
            weights[2] = 0
            return weights

        change(proto, weights_of(proto, find(at))[0], without_a_row)

    assert forms.difference(forms.file("exported"), forms.faulty(form, fault), store).part == at


@at_both
@pytest.mark.parametrize("form", ["exported", "simplified"])
def test_nan_is_named_where_it_begins(form: str, at: str, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        def with_a_nan(weights: np.ndarray) -> np.ndarray:
            weights.flat[5] = np.nan
            return weights

        change(proto, weights_of(proto, find(at))[0], with_a_nan)

    assert forms.difference("checkpoint", forms.faulty(form, fault), store).part == at


@pytest.mark.parametrize("form", ["exported", "portable"])
def test_swapped_weights_of_two_layers(form: str, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        pair = [find(f"denseblock1.denselayer{n}.conv2") for n in (2, 4)]
        if form == "portable":  # what is swapped are integers and their scales
            pair = [maker(proto, conv.input[1]) for conv in pair]
        one, other = (list(node.input) for node in pair)
        for at in range(3) if form == "portable" else (1,):
            pair[0].input[at], pair[1].input[at] = other[at], one[at]

    found = forms.difference("checkpoint", forms.faulty(form, fault), store)

    assert found.part == "denseblock1.denselayer2.conv2"


@pytest.mark.parametrize(("at", "norm"), [(FIRST, 1), (FIRST, 2)])
def test_epsilon_of_one_norm(at: str, norm: int, forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        layer = at.rpartition(".")[0]
        node = next(n for n in proto.graph.node if f"{layer}.norm{norm}.weight" in str(n.input))
        next(a for a in node.attribute if a.name == "epsilon").f = 1e-3

    assert forms.difference("checkpoint", forms.faulty("exported", fault), store).part == at


def test_order_of_a_concatenation_shows_in_what_reads_it(forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        maps = find("denseblock1.denselayer2.conv2").output[0]
        joined = next(n for n in proto.graph.node if n.op_type == "Concat" and maps in n.input)
        joined.input.extend(list(joined.input)[::-1])
        del joined.input[: len(joined.input) // 2]

    found = forms.difference("checkpoint", forms.faulty("simplified", fault), store)

    assert found.part == FIRST


def test_fault_of_the_classifier_is_named_as_the_logits(forms: "Forms", store: Store) -> None:
    def fault(proto: onnx.ModelProto, find: Find) -> None:
        change(proto, find("head").input[1], lambda weights: -weights)

    assert forms.difference("checkpoint", forms.faulty("simplified", fault), store).part == "logits"
