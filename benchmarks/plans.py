"""TensorRT-RTX plans of the family, built without a GPU: their sizes and what they would launch. Nothing is run."""

from dataclasses import dataclass, replace

from benchmarks import page, subjects
from benchmarks.ours import PASSES
from benchmarks.page import NONE
from benchmarks.subjects import Subject
from benchmarks.workshop import Workshop
from deploy_kit.base.errors import StageError
from deploy_kit.images import ImageSource
from deploy_kit.machine.environment import library_version
from deploy_kit.recipe import BuildEntry, Variant, targets
from deploy_kit.records.artifacts import Artifact, Proof
from deploy_kit.stages import build, quantize

GPUS = ("8.6", "8.9")
_ENGINE = "tensorrt_rtx"
_MIN, _OPT, _MAX = 1, 8, 32
_IMAGES = 8  # a plan has the same kernels whatever the scales are


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One plan.

    Attributes:
        net: Name and input.
        precision: Precision of the graph.
        size_bytes: Size of the plan; 0 where there is none.
        proof: What it computes in; None where there is none.
        why: Why there is none.
    """

    net: str
    precision: str
    size_bytes: int = 0
    proof: Proof | None = None
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class Plans:
    """All plans, the GPUs that each fits, and the builder's version."""

    plans: tuple[Plan, ...]
    capabilities: tuple[str, ...]
    version: str


def measure(nets: tuple[Subject, ...], workshop: Workshop) -> Plans:
    """Build fp32, fp16 and int8 of each net for all GPUs in one plan; a net of batch 0 takes 1 to 32 images."""
    plans = [made for net in nets for made in _family(net, workshop)]
    return Plans(plans=tuple(plans), capabilities=GPUS, version=library_version("tensorrt-rtx"))


def subjects_of(asked: Subject, workshop: Workshop, *, quick: bool) -> tuple[Subject, ...]:
    """Return the nets: the demo and the one asked for; unless quick, the family and an open batch too."""
    if quick:
        return (subjects.demo(),)
    names = ("densenet169", "densenet201", "densenet264")
    family = tuple(subjects.seeded(name, workshop.folder) for name in names)
    return (subjects.demo(), asked, *family, replace(asked.batched(0), name=f"{asked.name}, batch {_MIN} to {_MAX}"))


def _family(net: Subject, workshop: Workshop) -> list[Plan]:
    lean = workshop.simplified(net, PASSES).onnx
    return [_plan(net, lean, variant, workshop) for variant in variants()]


def variants() -> tuple[Variant, ...]:
    """Return what `deploykit quantize --target` makes of each precision."""
    liked = targets.find_target(_ENGINE)
    floats = [
        Variant(name=name, scheme=name, options={"passes": list(passes)})
        for name, passes in (("fp32", liked.fp32), ("fp16", liked.fp16))
    ]
    return (*floats, Variant(name="int8", scheme=f"int8_{liked.int8}"))


def _plan(net: Subject, lean: Artifact, variant: Variant, workshop: Workshop) -> Plan:
    precision = variant.name
    try:
        calibration = ImageSource(name=str(workshop.calibration(_IMAGES)))
        typed, _ = quantize.run(lean, variant, workshop.context, calibration=calibration)
        options = {"compute_capabilities": list(GPUS)} | (_shapes(lean) if not net.batch else {})
        entry = BuildEntry(engine=_ENGINE, variants=(precision,), options=options)
        built, _ = build.run(typed, entry, workshop.context)
    except StageError as error:
        return Plan(net=net.name, precision=precision, why=str(error))
    return Plan(net=net.name, precision=precision, size_bytes=built.size_bytes, proof=built.proof)


def _shapes(lean: Artifact) -> dict[str, list[str]]:
    sides = "x".join(str(side) for side in lean.inputs[0].shape[1:])
    name = lean.inputs[0].name
    bounds = {"min_shapes": _MIN, "opt_shapes": _OPT, "max_shapes": _MAX}
    return {key: [f"{name}:{batch}x{sides}"] for key, batch in bounds.items()}


def render(found: Plans) -> str:
    """Write the table."""
    whole = {plan.net: plan.size_bytes for plan in found.plans if plan.precision == "fp32"}
    rows = [_row(plan, whole.get(plan.net, 0)) for plan in found.plans]
    headings = (
        "net", "graph", "plan MB", "of fp32", "convolutions", "pointwise kernels", "of them for int8 alone", "remark"
    )  # fmt: skip
    gpus = " and ".join(f"sm_{capability.replace('.', '')}" for capability in found.capabilities)
    said = (
        f"Each plan is for {gpus}, built by TensorRT-RTX {found.version} on a machine without a GPU and **not run**; "
        "types and kernels are read from the plan, and are no measure of time."
    )
    return f"{page.table(headings, rows)}\n\n{said}"


def _row(plan: Plan, fp32_bytes: int) -> tuple[str, ...]:
    if plan.proof is None:
        return (plan.net, plan.precision, *([NONE] * 5), plan.why)
    kernels = dict(plan.proof.kernels)
    extra = kernels.get("pointwise, for int8 alone", 0)
    convolutions = ", ".join(f"{n} {dtype}" for kind, dtype, n in plan.proof.counts if kind == "Conv")
    share = f"{plan.size_bytes / fp32_bytes:.2f}" if fp32_bytes else NONE
    size = f"{plan.size_bytes / 1e6:.1f}"
    pointwise = str(kernels.get("pointwise", 0) + extra)
    remark = "int8 may not pay" if plan.proof.advice else ""
    return (plan.net, plan.precision, size, share, convolutions or NONE, pointwise, str(extra), remark)
