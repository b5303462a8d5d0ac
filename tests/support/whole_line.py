"""One file through all steps: export, simplify, INT8, build, check. The workers run in this process, which is quick."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stage_inputs import run_of
from stand_ins import PretendLink

from deploy_kit import pipeline, recipe
from deploy_kit.base.errors import BuildError
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.quantization.variant_choice import fit_recipe
from deploy_kit.recipe import targets
from deploy_kit.records.artifacts import Artifact, Exported
from deploy_kit.records.results import ParityReport
from deploy_kit.stages import build, check, quantize
from deploy_kit.store import Store

ENGINES = ("onnxruntime", "openvino")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What the steps gave: the export, the graphs by name, and the checks by (graph, engine)."""

    exported: Exported
    graphs: dict[str, Artifact]
    parity: dict[tuple[str, str], ParityReport]

    @property
    def changes(self) -> str:
        """What the export says of the file."""
        return "; ".join(self.exported.checkpoint.remarks)


def save_photos(path: Path, n: int, *, sides: tuple[int, int], seed: int) -> Path:
    """Save `n` seeded RGB images; neighboring pixels correlate, as noise must not."""
    generator = np.random.default_rng(seed)
    height, width = sides
    coarse = generator.integers(0, 256, (n, -(-height // 4), -(-width // 4), 3), np.uint8)
    np.savez(path, images=coarse.repeat(4, axis=1).repeat(4, axis=2)[:, :height, :width])
    return path


@dataclass(frozen=True, kw_only=True)
class WalkedTyped:
    """What the steps gave of a file that carries its precision.

    Attributes:
        store: Where the graph is.
        graph: It, simplified.
        built: By engine its file and proof, or why there is none.
        parity: By engine.
    """

    store: Store
    graph: Artifact
    built: dict[str, Any]
    parity: dict[str, ParityReport]


def walk_typed(path: Path, folder: Path, *, sides: tuple[int, ...]) -> WalkedTyped:
    """Take an ONNX file of RGB images in 0..1 that another program quantized through all steps but `quantize`."""
    stated = {"height": sides[0], "width": sides[1], "color": "rgb", "mean": [0, 0, 0], "std": [1, 1, 1]}
    table = recipe.load_recipe("default").model_dump(mode="json", exclude_none=True)
    table |= {"source": {"checkpoint": str(path), "preprocess": stated}, "quantize": {"variants": []}}
    table["check"]["images"] = str(save_photos(folder / "check.npz", 16, sides=(sides[0], sides[1]), seed=2))
    table["build"] = {"engines": [{"engine": engine, "variants": ["fp32"]} for engine in ENGINES]}
    run = run_of(recipe.parse_recipe(table), Store(folder / "store"), PretendLink(folder, WorkerProgram().operations))
    exported = pipeline.exported(run)
    answers, graph = pipeline.reference_logits(run, exported), pipeline.simplified(run, exported).onnx
    built: dict[str, Any] = {}
    parity = {}
    for entry in run.recipe.build.engines:
        try:
            engine, _ = build.run(graph, entry, run.target)
        except BuildError as error:
            built[entry.engine] = error
            continue
        built[entry.engine] = (run.store.path(engine), engine.proof)
        report, _ = check.run(engine, run.recipe.check, run.target, reference=answers, images=run.check_images)
        assert isinstance(report, ParityReport)
        parity[entry.engine] = report
    return WalkedTyped(store=run.store, graph=graph, built=built, parity=parity)


def walk(
    path: Path,
    folder: Path,
    *,
    sides: tuple[int, int] = (64, 64),
    scheme: str = "int8_portable",
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
    **source: Any,
) -> Walked:
    """Take one ONNX file of RGB images through all steps.

    Args:
        path: The file.
        folder: For images, store and tensors.
        sides: Height and width of its input.
        scheme: INT8 scheme.
        mean: Mean of each channel.
        std: Standard deviation of each channel.
        **source: Further keys of the recipe's source table.
    """
    stated = {"height": sides[0], "width": sides[1], "color": "rgb", "mean": list(mean), "std": list(std)}
    table = recipe.load_recipe("default").model_dump(mode="json", exclude_none=True)
    table |= {"source": {"checkpoint": str(path), "preprocess": stated, **source}}
    link = PretendLink(folder, WorkerProgram().operations)
    # Every scheme has as many bits for its weights as the portable one is given here.
    narrow = scheme == "int8_ort" and targets.narrow_sums(link.environment.isa)
    table["quantize"] = {
        "calibration": str(save_photos(folder / "calibration.npz", 24, sides=sides, seed=1)),
        "variants": [{"name": "int8", "scheme": scheme, "options": {"reduce_range": True} if narrow else {}}],
    }
    table["check"]["images"] = str(save_photos(folder / "check.npz", 16, sides=sides, seed=2))
    table["build"] = {"engines": [{"engine": engine, "variants": ["fp32", "int8"]} for engine in ENGINES]}
    fitted, _ = fit_recipe(recipe.parse_recipe(table), link.environment.isa)
    run = run_of(fitted, Store(folder / "store"), link)
    exported = pipeline.exported(run)
    answers = pipeline.reference_logits(run, exported)
    lean = pipeline.simplified(run, exported).onnx
    int8, _ = quantize.run(lean, run.recipe.quantize.variants[0], run.host, calibration=run.calibration_images)
    graphs, parity = {"fp32": lean, "int8": int8}, {}
    for entry in run.recipe.build.engines:
        for name, graph in graphs.items():
            engine, _ = build.run(graph, entry, run.target)
            report, _ = check.run(engine, run.recipe.check, run.target, reference=answers, images=run.check_images)
            assert isinstance(report, ParityReport)
            parity[name, entry.engine] = report
    return Walked(exported=exported, graphs=graphs, parity=parity)
