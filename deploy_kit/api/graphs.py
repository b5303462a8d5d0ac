"""From a checkpoint to a graph that carries its precision: `export`, `simplify`, `quantize`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from deploy_kit import pipeline
from deploy_kit import recipe as recipes
from deploy_kit.api import _facts, _step
from deploy_kit.api._step import Graph, PathLike, Progress, StoreLike
from deploy_kit.base.errors import RequestError
from deploy_kit.machine import environment
from deploy_kit.quantization.variant_choice import VariantRequest, choose_variant, keep_float, verify_place
from deploy_kit.recipe import Recipe, overrides
from deploy_kit.records.artifacts import Artifact, Exported, Precision
from deploy_kit.records.passports import verify_out
from deploy_kit.records.results import Simplified
from deploy_kit.stages import export as export_stage
from deploy_kit.stages import quantize as quantize_stage

DEMO = "demo"


def export(
    checkpoint: PathLike | None = None,
    *,
    input: int | str | Sequence[int] | None = None,  # noqa: A002  # called as the flag is
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    color: Literal["gray", "rgb", "bgr"] | None = None,
    resize: int | None = None,
    interpolation: Literal["bilinear", "bicubic"] | None = None,
    exporter: Literal["dynamo", "torchscript"] | None = None,
    opset: int | None = None,
    batch: int | None = None,
    dynamic: bool = False,
    output: str | None = None,
    input_pixels: bool = False,
    state_key: str | None = None,
    head: str | None = None,
    ignore: str | Sequence[str] = (),
    probe: PathLike | None = None,
    strict: bool = False,
    stem_stride: int | Sequence[int] | None = None,
    stem_pool: str | None = None,
    concat: Literal["append", "prepend"] | None = None,
    activation: str | None = None,
    outer_activation: str | None = None,
    stem_activation: str | None = None,
    hidden_activation: str | None = None,
    slope: float | None = None,
    stem_slope: float | None = None,
    outer_slope: float | None = None,
    hidden_slope: float | None = None,
    dense_order: Literal["norm_first", "activation_first"] | None = None,
    transition_order: Literal["norm_first", "activation_first"] | None = None,
    final_order: Literal["norm_first", "activation_first"] | None = None,
    hidden_order: Literal["norm_first", "activation_first"] | None = None,
    transition_relu: bool | None = None,
    transition_pool: Literal["avg", "max", "none"] | None = None,
    final_relu: bool | None = None,
    eps: float | None = None,
    hidden_eps: float | None = None,
    head_pool: str | None = None,
    feature_norm: Literal["none", "l2"] | None = None,
    head_activation: str | None = None,
    skip_order: Literal["up_first", "skip_first"] | None = None,
    up_crop: Literal["start", "end"] | None = None,
    upsampling: Literal["nearest", "bilinear"] | None = None,
    map_scale: int | None = None,
    images: PathLike | None = None,
    calibration: PathLike | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    recipe: Recipe | PathLike | None = None,
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Exported:
    """Export a checkpoint to ONNX; the file is re-run and compared with the checkpoint before it is kept.

    The architecture is found in the checkpoint's tensors, and nothing in the file is executed. What a file cannot say
    of itself is given by keyword; `docs/checkpoints.md` lists when that is needed.

    Args:
        checkpoint: A checkpoint or ONNX file; the bundled demo if None.
        input: Sides of the input in px, ``(224, 224)`` or ``"224x224"``; needed where the file does not say.
        mean: Mean of each channel, of pixels in 0..1; needed for images where the file does not carry it.
        std: Standard deviation of each channel, likewise.
        color: Order of the channels; by default gray for one mean and RGB for three.
        resize: Length in px that the shorter side is scaled to before a center crop.
        interpolation: Filter of the resize.
        exporter: torch's exporter.
        opset: ONNX operator set.
        batch: Images per run of a static graph.
        dynamic: Leave the batch open instead.
        output: Output of an ONNX file to take, where it has several, or a value within it.
        input_pixels: Let the graph take pixels, uint8 (N, H, W, C) in RGB order, and normalize them itself.
        state_key: Which state dict to take, where the file holds several.
        head: Module of the head to take, where there are several; ``"none"`` for the pooled features.
        ignore: Modules or tensors of the file to leave out.
        probe: npz file with one ``input`` and its ``logits``, on which what is left open is tried.
        strict: Refuse to guess a fact that changes the numbers.
        stem_stride: Stride of the first convolution: one number, or one for each axis.
        stem_pool: Pooling at the end of the stem: ``none``, ``max``, ``avg`` or ``blur``.
        concat: Whether a layer's new channels come after the old ones, or before them.
        activation: Activation of the dense layers, e.g. ``relu``.
        outer_activation: Activation of stem, transitions and end.
        stem_activation: Activation of the stem, where it is another one.
        hidden_activation: Activation between linear layers.
        slope: Slope of leaky activations below zero.
        stem_slope: The same in the stem, where it is another one.
        outer_slope: The same outside of dense layers, likewise.
        hidden_slope: The same between linear layers, likewise.
        dense_order: Whether a dense layer's BNs come before their activations, as in the paper, or behind them.
        transition_order: The same of a transition's BN.
        final_order: The same of the last BN.
        hidden_order: The same of BNs between linear layers.
        transition_relu: Whether an activation stands before each transition's convolution.
        transition_pool: Pooling of the transitions.
        final_relu: Whether an activation follows the last BN.
        eps: Epsilon of every BN.
        hidden_eps: Epsilon of BNs between linear layers, where it is another one.
        head_pool: How the last map becomes a vector: ``avg``, ``max``, ``max_avg``, ``avg_max`` or ``avg_max_mean``.
        feature_norm: ``l2`` where that vector is divided by its Euclidean norm.
        head_activation: Activation to put behind the logits.
        skip_order: Whether a decoder's enlarged maps come before the encoder's, or behind them.
        up_crop: Which pixels stay of a transposed convolution's odd number: from the ``start``, or to the ``end``.
        upsampling: Interpolation of a decoder that resizes.
        map_scale: How many times larger the output of a feature pyramid is than its own maps.
        images: Images that later checks use: a folder, a CSV manifest, an npz file or ``bundled:NAME``.
        calibration: Images that a later quantization uses, likewise.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        recipe: A recipe to export under; what is given beside it goes over it.
        out: Also copy the graph and its passport to this path.
        store: Folder of results; by default the environment's ``DEPLOYKIT_STORE``, or ``.deploykit``.
        on_progress: ``"auto"`` draws progress in a terminal or a notebook, None draws nothing, and a function is called
            with each `ProgressEvent`.

    Returns:
        The graph, and what is known of the checkpoint.

    Raises:
        CheckpointError: The checkpoint cannot be read, or leaves a question open; the hint says which keyword answers.
        InputError: A file is missing, or does not fit.
        ExportError: The checkpoint cannot be exported, or the ONNX file disagrees with it.
    """
    given = dict(locals())
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    base = _base_recipe(checkpoint, recipe)
    table = {key: given[key] for key in ("exporter", "opset", "batch") if given[key] is not None}
    table |= {key: True for key in ("dynamic", "input_pixels") if given[key]}
    source = _facts.source(given) | _facts.image(given)
    if checkpoint is not None:
        export_stage.verify_applicable(Path(checkpoint), [*table, *source])
    base = overrides.with_export(base, source, table)
    base = overrides.with_inputs(
        base,
        checkpoint=_step.text_or_none(checkpoint),
        calibration=_step.text_or_none(calibration),
        images=_step.text_or_none(images),
        skip_bad=skip_bad,
        orientation=orientation,
    )
    with _step.opened(base, opened_store, on_progress, stage="export") as step:
        exported = pipeline.exported(step.run)
        if copy_to is not None:
            opened_store.copy_out(exported.onnx, copy_to)
        return exported


def simplify(
    graph: Graph,
    *,
    passes: str | Sequence[str] | None = None,
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Simplified:
    """Simplify a graph: the same function in fewer steps, each pass held to its promise.

    Args:
        graph: What `export` returned, or a checkpoint or ONNX file, which is exported first.
        passes: Names of passes in order, ``default`` for the default ones; the recipe's if None.
        out: Also copy the graph and its passport to this path.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The graph, and what each pass did.

    Raises:
        UnknownNameError: No pass has this name.
        RequestError: The graph is not an exported one.
        SimplifyError: A pass changed the outputs by more than it promises.
    """
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    base = _step.recipe_of(graph, opened_store)
    if passes is not None:
        base = overrides.with_passes(base, (passes,) if isinstance(passes, str) else tuple(passes))
    with _step.opened(base, opened_store, on_progress, stage="simplify") as step:
        source = _step.exported(step.run, graph)
        if source.stage != "export":
            raise RequestError(f"{source.path}: expected an exported graph, found one of stage '{source.stage}'")
        simplified = _step.simplified_of(step.run, source)
        if copy_to is not None:
            opened_store.copy_out(simplified.onnx, copy_to)
        return simplified


def quantize(
    graph: Graph,
    precision: Precision | None = None,
    *,
    target: str = "onnxruntime",
    layout: Literal["portable", "tensorrt", "ort", "nncf"] | None = None,
    form: Literal["max", "depthwise"] | None = None,
    method: Literal["minmax", "percentile", "entropy", "mse"] | None = None,
    rounding: Literal["nearest", "descent"] | None = None,
    scheme: str | None = None,
    keep: str | Sequence[str] = (),
    calibration: PathLike | None = None,
    skip_bad: bool = False,
    orientation: Literal["stored", "upright"] | None = None,
    on: str = "",
    out: PathLike | None = None,
    store: StoreLike = None,
    on_progress: Progress = "auto",
) -> Artifact:
    """Return a graph a precision, written into the graph itself.

    Args:
        graph: What `export` or `simplify` returned, or a checkpoint or ONNX file; it is simplified first.
        precision: ``int8``, ``fp16``, ``bf16`` or ``fp32``; by default ``int8``, or what the scheme gives.
        target: The engine it is for: it decides layout and form.
        layout: INT8 layout; by default the target's.
        form: What BN + ReLU become in the portable layout.
        method: How INT8 ranges are chosen.
        rounding: How INT8 weights are rounded.
        scheme: A scheme of the catalogue, by name.
        keep: Layer groups that stay in float, by coordinate, e.g. ``stem`` or ``block 1``.
        calibration: Images to calibrate with: a folder, a CSV manifest, an npz file or ``bundled:NAME``; by default
            those that the graph was exported with.
        skip_bad: Leave out images that cannot be read, and count them.
        orientation: Whether images with an EXIF orientation are read as they are ``stored`` or turned ``upright``.
        on: Where to observe the calibration images, see `deploy`.
        out: Also copy the graph and its passport to this path.
        store: Folder of results, see `export`.
        on_progress: See `export`.

    Returns:
        The graph's passport; ``store.path(…)`` of a `Store` is its file.

    Raises:
        RequestError: Options that belong to another precision.
        InputError: No images to calibrate with, or some that would give wrong ranges.
        QuantizeError: The scheme failed.
    """
    opened_store, copy_to = _step.open_store(store), _step.path_or_none(out)
    verify_out(copy_to)
    base = overrides.with_inputs(
        _step.recipe_of(graph, opened_store),
        calibration=_step.text_or_none(calibration),
        skip_bad=skip_bad,
        orientation=orientation,
    )
    asked_for = precision or (None if scheme else "int8")
    request = VariantRequest(
        precisions=(asked_for,) if asked_for else (),
        target=target,
        layout=layout,
        form=form,
        method=method,
        rounding=rounding,
        scheme=scheme,
    )
    with _step.opened(base, opened_store, on_progress, stage="quantize", on=on) as step:
        variant, remarks = choose_variant(
            request, base, environment.describe_machine().isa, environment.library_version
        )
        for remark in remarks:
            step.remark(remark)
        variant = keep_float(variant, (keep,) if isinstance(keep, str) else tuple(keep))
        verify_place(variant, on)
        run, source = step.run, _step.simplified(step.run, graph)
        quantized = run.timed(
            "quantize",
            variant.name,
            lambda: quantize_stage.run(source, variant, run.host, calibration=run.calibration_images),
        )
        if copy_to is not None:
            opened_store.copy_out(quantized, copy_to)
        return quantized


def _base_recipe(checkpoint: PathLike | None, recipe: Recipe | PathLike | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return recipes.load_recipe(str(recipe))
    return recipes.load_recipe(DEMO if checkpoint is None else overrides.DEFAULT)
