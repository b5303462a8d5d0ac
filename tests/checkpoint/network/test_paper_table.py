"""Tests of `paper_table`: every choice that a spec has is told, whatever it is."""

import dataclasses
from typing import Any, get_args, get_type_hints

import pytest
from families import small

from deploy_kit.checkpoint.network import paper_table
from deploy_kit.records.densenet import DenseNetSpec

TYPES = get_type_hints(DenseNetSpec)
CHOICES = [
    (name, value)
    for name in ("stem_pool", "transition_pool", "head_pool", "dense_order", "transition_order", "final_order",
                 "concat", "activation", "feature_norm", "head_activation")
    for value in get_args(TYPES[name])
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CHOICES)
def test_every_choice_is_told_and_those_unlike_the_papers_are_seen(name: str, value: Any) -> None:
    paper = small()
    spec = dataclasses.replace(paper, **{name: value}, **{"map_side": 7} if value == "flatten" else {})

    rows = paper_table.rows(spec, (224, 224))

    assert (rows == paper_table.rows(paper, (224, 224))) == (getattr(paper, name) == value)
    assert ("MACs per run", f"{paper_table.macs(spec, (224, 224)):,}") in rows


@pytest.mark.parametrize("pool", ["max_avg", "avg_max"])
def test_a_head_of_twice_the_width_has_twice_its_products(pool: str) -> None:
    one, two = (paper_table.macs(small(head_pool=kind), (224, 224)) for kind in ("avg", pool))

    assert two - one == small().width * 5
