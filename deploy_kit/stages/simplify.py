"""ONNX → ONNX: the recipe's passes in order, each held to its promise by running the graph before and after."""

from pathlib import Path

import numpy as np

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import SimplifyError, StageError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.devices.links import Connection, Worker
from deploy_kit.graph import edit, onnx_file, passes, sums_of_two
from deploy_kit.graph.onnx_artifact import onnx_artifact
from deploy_kit.graph.passes import Outcome
from deploy_kit.images import SYNTHETIC, open_set
from deploy_kit.machine.environment import versions_of
from deploy_kit.recipe import SimplifyTable
from deploy_kit.records.artifacts import Artifact, BareInput, Preprocess
from deploy_kit.records.made_by import MadeBy
from deploy_kit.records.results import PassRow, Simplified

VERSION = "4"
# A deep network may make more of the rounding of sums in another order than a pass promises: at most so many times
# that, or so many times what it makes of the last bit of its weights.
_ROUNDING = 10
GIVEN = "-given"
"""End of the name of a graph whose file carries another precision than float32: a variant may be called ``int8``."""
_LIBRARIES = ("onnx", "onnx-ir", "onnxscript")
_VERIFIED_IMAGES = 8
_LEAVE_OUT = "list recipe.simplify.passes without '{}' (deploykit run --dry-run prints them), and report this graph"


def run(exported: Artifact, table: SimplifyTable, context: Context) -> tuple[Simplified, bool]:
    """Simplify a graph.

    Args:
        exported: A float32 graph.
        table: Names the passes.
        context: Where.

    Returns:
        The graph with a row for each pass, and whether the store had it.

    Raises:
        UnknownNameError: No pass has this name.
        SimplifyError: A pass changed the outputs by much more than it promises. One that changes them by a little more,
            or by about as much as the rounding of the weights does, is left out, and its row says so.
    """
    versions = versions_of(*_LIBRARIES)
    names = passes.resolve_names(table.passes)  # in the key as well: other default passes are another result

    def make(folder: Path, home: str) -> Simplified:
        file = folder / "model.onnx"
        with context.connection.worker() as worker:
            rows = _apply(context.store.path(exported), file, names, exported.preprocess, context, worker)
        model = onnx_file.load(file)
        precision = onnx_file.precision(model)
        if precision == "int8":  # passes have stored weights that were floats behind a pair
            sums_of_two.note(model)
            onnx_file.save(model, file)
        onnx = onnx_artifact(
            file,
            home,
            name=precision if precision == "fp32" else precision + GIVEN,
            stage="simplify",
            parent=exported.sha256,
            preprocess=exported.preprocess,
            made_by=MadeBy(passes=", ".join(names), versions=versions),
            model=model,
        )
        return Simplified(onnx=onnx, passes=rows)

    return context.produce(
        Simplified,
        make,
        stage="simplify",
        name="simplified",
        inputs=(exported.sha256,),
        options=table.model_dump() | {"passes": names},
        versions=(("stage", VERSION), *versions),
    )


def _apply(
    source: Path,
    file: Path,
    names: tuple[str, ...],
    preprocess: Preprocess | BareInput,
    context: Context,
    worker: Worker,
) -> tuple[PassRow, ...]:
    model = onnx_file.load(source)
    onnx_file.expect_input(model, preprocess, source)
    onnx_file.save(model, file)
    before, rows = _logits(file, preprocess, context.connection, worker), []
    if not before.any():
        raise SimplifyError(f"{source}: its outputs are all zero: nothing can be compared")
    if not np.isfinite(before).all():
        raise SimplifyError(
            f"{source}: its outputs are not finite on seeded noise: nothing can be compared",
            hint="a weight is NaN or infinite, or something divides by 0 or overflows: mend it where it was exported",
        )
    trial, held = file.with_name(f"trial-{file.name}"), onnx_file.digest(model)
    for index, name in enumerate(names):
        context.report("simplify", name, done=index, total=len(names))
        entry = passes.CATALOGUE.get(name)
        nodes, macs = onnx_file.nodes(model), onnx_file.macs(model)
        try:
            outcome = entry.apply(model)
            found = onnx_file.digest(model)
            if changed := found != held:
                onnx_file.save(model, trial)
            after = _logits(trial, preprocess, context.connection, worker) if changed else before
        except StageError as error:
            raise SimplifyError(f"pass '{name}' broke the graph: {error}", hint=_LEAVE_OUT.format(name)) from error
        difference = metrics.relative_difference(before, after)
        said = f"changed the outputs by {difference:.2g} of the largest logit; it promises at most {entry.promise:g}"
        if difference <= entry.promise:
            if changed:
                trial.replace(file)
            before, held = after, found
        else:
            reason = f"left out: it {said}"
            model = onnx_file.load(file)
            if not difference <= _ROUNDING * entry.promise:
                onnx_file.save(edit.rounded_otherwise(onnx_file.load(file)), trial)
                own = metrics.relative_difference(before, _logits(trial, preprocess, context.connection, worker))
                # A pass that promises the same bits has no rounding to excuse it.
                if not entry.promise or not difference <= _ROUNDING * own:
                    raise SimplifyError(f"pass '{name}' {said}", hint=_LEAVE_OUT.format(name))
                reason += f"; weights that differ in their last bit change them by {own:.2g}"
            trial.unlink()
            outcome, difference = Outcome(fired=0, refused=((reason, outcome.fired),)), 0.0
        rows.append(
            PassRow(
                name=name,
                fired=outcome.fired,
                nodes_before=nodes,
                nodes_after=onnx_file.nodes(model),
                macs_before=macs,
                macs_after=onnx_file.macs(model),
                max_difference=difference,
                promise=entry.promise,
                refused=outcome.refused,
            )
        )
    return tuple(rows)


def _logits(file: Path, preprocess: Preprocess | BareInput, connection: Connection, worker: Worker) -> np.ndarray:
    """Compute the graph node by node as it stands: ONNX Runtime's own rewrites would blur what a pass did."""
    target = inference.InferenceTarget(engine="onnxruntime", path=file, options={"optimize": False})
    sample = open_set(SYNTHETIC, preprocess).first(_VERIFIED_IMAGES)
    return inference.infer_all(connection, target, sample, preprocess, worker=worker).logits
