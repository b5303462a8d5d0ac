"""Tests of `simplify`: a row for each pass, and a pass that breaks its promise is caught."""

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
import torch
from stand_ins import PretendLink
from tiny_densenet import tiny_model

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import InputError, SimplifyError, StoreError, UnknownNameError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file, passes
from deploy_kit.graph.passes import Outcome, Pass, drop_identities
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import SimplifyTable
from deploy_kit.records.artifacts import Artifact
from deploy_kit.records.results import Simplified
from deploy_kit.stages import simplify
from deploy_kit.store import Store

ALL = (
    "fold_constants",
    "drop_identities",
    "drop_single_concats",
    "fold_batchnorm",
    "merge_duplicates",
    "remove_unused",
)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> PretendLink:
    """Worker operations in this process: quicker than a process for each; `tiny_graphs` uses the real link."""
    return PretendLink(tmp_path_factory.mktemp("link"), WorkerProgram().operations)


@pytest.fixture
def exported(store: Store) -> Artifact:
    result, data = tiny_graphs.exported()
    return tiny_graphs.place(store, result.onnx, data)


@pytest.fixture
def run(store: Store, connection: Connection, exported: Artifact) -> Callable[..., tuple[Simplified, bool]]:
    def run(*names: str, artifact: Artifact = exported) -> tuple[Simplified, bool]:
        return simplify.run(artifact, SimplifyTable(passes=names), Context(store=store, connection=connection))

    return run


def scaling_the_bias_by(factor: float) -> Callable[[ir.Model], Outcome]:
    def apply(model: ir.Model) -> Outcome:
        bias = model.graph.initializers["classifier.bias"]
        bias.const_value = ir.tensor(bias.const_value.numpy() * np.float32(factor), name="classifier.bias")
        return Outcome(fired=1)

    return apply


def losing_a_weight(model: ir.Model) -> Outcome:
    del model.graph.initializers["classifier.bias"]
    return Outcome(fired=1)


def test_rows_are_the_passes_in_the_order_of_the_recipe() -> None:
    result, _ = tiny_graphs.simplified()

    assert tuple(row.name for row in result.passes) == ALL


def test_rows_follow_each_other_from_the_exported_graph_to_the_file() -> None:
    result, _ = tiny_graphs.simplified()
    first, last = tiny_graphs.exported_model(), tiny_graphs.simplified_model()

    before, after = zip(*((row.nodes_before, row.nodes_after) for row in result.passes), strict=True)

    assert (*before, after[-1]) == (onnx_file.nodes(first), *after)
    assert after[-1] == onnx_file.nodes(last)


def test_rows_count_the_multiply_accumulates() -> None:
    result, _ = tiny_graphs.simplified()

    assert {row.macs_before for row in result.passes} == {onnx_file.macs(tiny_graphs.exported_model())}
    assert result.passes[-1].macs_after == onnx_file.macs(tiny_graphs.simplified_model())


def test_rows_say_what_fired_and_what_was_refused() -> None:
    rows = {row.name: row for row in tiny_graphs.simplified()[0].passes}

    assert rows["fold_batchnorm"].fired == 5
    assert dict(rows["fold_batchnorm"].refused) == {
        "it follows AveragePool, not a convolution": 1,
        "it follows Concat, not a convolution": 4,
        "it follows MaxPool, not a convolution": 1,
    }
    assert rows["fold_constants"].fired == 0  # the export is folded


def test_rows_keep_the_difference_and_its_promise() -> None:
    result, _ = tiny_graphs.simplified()

    assert all(row.max_difference <= row.promise for row in result.passes)
    assert next(row for row in result.passes if row.name == "fold_batchnorm").max_difference > 0


def test_simplified_graph_computes_what_torch_computes() -> None:
    x = tiny_graphs.images()
    wanted = tiny_model().double()(torch.from_numpy(x).double()).numpy()

    (found,) = tiny_graphs.evaluate(tiny_graphs.simplified_model(), x)

    assert metrics.relative_difference(wanted, found) < 1e-6


def test_simplified_densenet_is_left_with_what_it_needs() -> None:
    operators = onnx_file.operators(tiny_graphs.simplified_model())

    assert operators["Conv"] == 1 + 4 * 2 + 1
    assert operators["BatchNormalization"] == 4 + 1 + 1
    assert not {"Constant", "Identity", "Dropout", "CastLike", "Expand", "Shape"} & set(operators)


def test_open_batch_stays_open(run: Callable[..., tuple[Simplified, bool]], store: Store) -> None:
    raw, data = tiny_graphs.exported(dynamic=True)

    result, _ = run(*ALL, artifact=tiny_graphs.place(store, raw.onnx, data))

    assert (result.onnx.inputs, result.onnx.outputs) == (raw.onnx.inputs, raw.onnx.outputs)


def test_no_passes_give_the_graph_as_it_is(run: Callable[..., tuple[Simplified, bool]], store: Store) -> None:
    result, _ = run()

    assert result.passes == ()
    assert tiny_graphs.operators(onnx_file.load(store.path(result.onnx))) == tiny_graphs.operators(
        tiny_graphs.exported_model()
    )


def test_passport_says_what_the_file_is(
    run: Callable[..., tuple[Simplified, bool]], exported: Artifact, store: Store
) -> None:
    result, _ = run("remove_unused")

    artifact, file = result.onnx, store.root / result.onnx.path
    assert (artifact.name, artifact.stage, artifact.precision) == ("fp32", "simplify", "fp32")
    assert (artifact.sha256, artifact.parent) == (sha256_of(file), exported.sha256)
    assert dict(artifact.made_by.rows)["passes"] == "remove_unused"
    assert onnx_file.preprocess(onnx_file.load(file)) == exported.preprocess


@pytest.mark.parametrize(("factor", "promise"), [(1.001, 1e-5), (1.0000002, 0.0), (float("nan"), 1e-5)])
def test_pass_that_breaks_its_promise_is_caught(
    factor: float, promise: float, run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=scaling_the_bias_by(factor), promise=promise))

    message = (
        rf"pass 'drop_identities' changed the outputs by \S+ of the largest logit; it promises at most {promise:g}"
    )
    with pytest.raises(SimplifyError, match=message) as caught:
        run("drop_identities")

    assert caught.value.hint == (
        "list recipe.simplify.passes without 'drop_identities' (deploykit run --dry-run prints them), "
        "and report this graph"
    )


def test_pass_within_its_promise_is_accepted(
    run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=scaling_the_bias_by(1.001), promise=0.01))

    result, _ = run("drop_identities")

    assert 1e-5 < result.passes[0].max_difference <= 0.01


def test_pass_that_rounding_takes_a_little_beyond_its_promise_is_left_out(
    run: Callable[..., tuple[Simplified, bool]],
    monkeypatch: pytest.MonkeyPatch,
    exported: Artifact,
    store: Store,
) -> None:
    apply = scaling_the_bias_by(1.001)
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=apply, promise=0.01))
    whole = run("drop_identities")[0].passes[0]
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=apply, promise=whole.max_difference / 3))

    result, _ = run("drop_identities", "remove_unused")

    first, second = result.passes
    assert (first.fired, first.max_difference, second.name) == (0, 0.0, "remove_unused")
    ((reason, places),) = first.refused
    assert reason.startswith(f"left out: it changed the outputs by {whole.max_difference:.2g} of the largest logit")
    assert places == whole.fired
    x = tiny_graphs.images()
    same = (tiny_graphs.evaluate(onnx_file.load(store.path(one)), x)[0] for one in (exported, result.onnx))
    np.testing.assert_array_equal(*same)
    assert not list(store.path(result.onnx).parent.glob("trial*"))


def test_pass_that_changes_no_more_than_the_rounding_of_the_weights_is_left_out(
    run: Callable[..., tuple[Simplified, bool]], exported: Artifact, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx_file.load(store.path(exported))
    bias, logits = model.graph.initializers["classifier.bias"], model.graph.outputs[0]
    bias.const_value = ir.tensor(bias.const_value.numpy() + np.float32(1e5), name="classifier.bias")
    far = ir.Value(name="far", const_value=ir.tensor(np.float32([1e5]), name="far"))
    model.graph.register_initializer(far)
    near = ir.node("Sub", [logits, far])  # what the sum with 1e5 rounded away does not come back
    near.outputs[0].name, near.outputs[0].type, near.outputs[0].shape = "near", logits.type, logits.shape
    model.graph.append(near)
    model.graph.outputs[0] = near.outputs[0]
    file = store.root / exported.path
    onnx_file.save(model, file)
    amplifying = dataclasses.replace(exported, sha256=sha256_of(file))
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=scaling_the_bias_by(1.0000002), promise=1e-5))

    result, _ = run("drop_identities", artifact=amplifying)

    ((reason, places),) = result.passes[0].refused
    assert places == 1
    assert re.fullmatch(
        r"left out: it changed the outputs by \S+ of the largest logit; it promises at most 1e-05; "
        r"weights that differ in their last bit change them by \S+",
        reason,
    )
    x = tiny_graphs.images()
    same = (tiny_graphs.evaluate(onnx_file.load(store.path(one)), x)[0] for one in (amplifying, result.onnx))
    np.testing.assert_array_equal(*same)


def test_outputs_that_are_no_numbers_are_not_blamed_on_a_pass(
    run: Callable[..., tuple[Simplified, bool]], exported: Artifact, store: Store
) -> None:
    model = onnx_file.load(store.path(exported))
    scaling_the_bias_by(float("nan"))(model)
    file = store.root / exported.path
    onnx_file.save(model, file)
    broken = dataclasses.replace(exported, sha256=sha256_of(file))

    with pytest.raises(SimplifyError, match=r"model\.onnx: its outputs are not finite on seeded noise"):
        run("remove_unused", artifact=broken)


def test_liar_among_honest_passes_is_named(
    run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=scaling_the_bias_by(1.001), promise=0.0))

    with pytest.raises(SimplifyError, match="pass 'drop_identities' changed the outputs"):
        run("remove_unused", "drop_identities", "merge_duplicates")


def test_failure_leaves_nothing_in_the_store(
    run: Callable[..., tuple[Simplified, bool]], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(store.root.rglob("*"))
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=scaling_the_bias_by(1.001), promise=0.0))

    with pytest.raises(SimplifyError):
        run("drop_identities")

    assert set(store.root.rglob("*")) == before


def test_pass_that_leaves_an_invalid_graph_is_named(
    run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drop_identities, "PASS", Pass(apply=losing_a_weight, promise=0.0))

    with pytest.raises(SimplifyError, match="drop_identities"):
        run("drop_identities")


def test_unknown_pass_names_the_nearest(run: Callable[..., tuple[Simplified, bool]]) -> None:
    with pytest.raises(UnknownNameError, match="no graph pass is called 'fold_batch_norm'") as caught:
        run("fold_batch_norm")

    assert caught.value.hint == "did you mean 'fold_batchnorm'?"


def test_preprocess_that_does_not_fit_the_graph_is_refused(
    run: Callable[..., tuple[Simplified, bool]], exported: Artifact
) -> None:
    other = dataclasses.replace(exported, preprocess=dataclasses.replace(exported.preprocess, width=24))

    with pytest.raises(InputError, match="expected one input N×1×16×24, found input"):
        run("remove_unused", artifact=other)


def test_changed_source_is_noticed(
    run: Callable[..., tuple[Simplified, bool]], exported: Artifact, store: Store
) -> None:
    (store.root / exported.path).write_bytes(b"changed")

    with pytest.raises(StoreError, match="missing, or changed since it was made"):
        run("remove_unused")


def test_second_run_takes_the_result_from_the_store(
    run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, had = run("remove_unused")
    monkeypatch.setattr(simplify, "_apply", None)

    second, has = run("remove_unused")

    assert (had, has) == (False, True)
    assert second == first


def test_other_order_is_another_result(run: Callable[..., tuple[Simplified, bool]]) -> None:
    run("remove_unused", "merge_duplicates")

    _, had = run("merge_duplicates", "remove_unused")

    assert not had


def test_stage_tells_each_pass(store: Store, connection: Connection, exported: Artifact) -> None:
    heard = list[ProgressEvent]()
    part = SimplifyTable(passes=("drop_identities", "remove_unused"))

    simplify.run(exported, part, Context(store=store, connection=connection, on_progress=heard.append))

    assert [(event.text, event.done, event.total) for event in heard] == [
        ("drop_identities", 0, 2),
        ("remove_unused", 1, 2),
    ]


def test_default_passes_are_recorded_by_name(run: Callable[..., tuple[Simplified, bool]]) -> None:
    made, _ = run("default")

    assert tuple(row.name for row in made.passes) == passes.default_passes()
    assert made.onnx.made_by.passes == ", ".join(passes.default_passes())


def test_default_and_the_list_that_it_stands_for_are_one_result(run: Callable[..., tuple[Simplified, bool]]) -> None:
    first, _ = run(*passes.default_passes())

    second, had = run("default")

    assert had
    assert second == first


def test_other_default_passes_are_another_result(
    run: Callable[..., tuple[Simplified, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("default")
    monkeypatch.setattr(passes, "default_passes", lambda: ("fold_constants", "remove_unused"))

    made, had = run("default")

    assert not had
    assert [row.name for row in made.passes] == ["fold_constants", "remove_unused"]
