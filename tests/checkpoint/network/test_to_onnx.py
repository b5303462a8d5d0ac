"""Tests of `to_onnx`: what a file says of its network."""

import dataclasses

from tiny_densenet import TINY_SPEC

from deploy_kit.checkpoint.network import to_onnx

# A fact that came later is stated where it is not the paper's: files, and all that is made of them, keep their sha256.
STATED = {
    "in_channels", "stem", "blocks", "transitions", "heads", "stem_pool", "eps", "concat", "activation",
    "outer_activation", "slope", "transition_norm", "transition_relu", "transition_kernel", "transition_bias",
    "transition_groups", "transition_pool", "final_norm", "final_relu", "head_pool", "head_activation",
    "hidden_activation", "trunk", "map_side", "input_norm", "sources",
}  # fmt: skip


def test_files_of_networks_like_the_papers_state_what_they_always_did() -> None:
    assert to_onnx._stated(TINY_SPEC).keys() == STATED


def test_a_later_fact_is_stated_where_it_is_not_the_papers() -> None:
    stated = to_onnx._stated(dataclasses.replace(TINY_SPEC, stem_activation="leaky_relu", stem_slope=0.2))

    assert stated.keys() - STATED == {"stem_activation", "stem_slope"}
