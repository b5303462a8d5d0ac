"""Every precision deploykit writes, computed by ONNX Runtime's ARM kernels and held against its x86 ones.

    PYTHONPATH=. python tests/support/edge_arm.py [--net densenet121] [--size 64] [--images 32] [--cpu max]

prints the table of docs/int8.md, section ARM. What is computed on the emulated device is what an ARM processor
computes; times are not looked at. The processor that qemu plays decides which kernels ONNX Runtime takes: seen in
qemu's log of translated instructions, 1.31 multiplies integers by SMLAL on ``cortex-a53``, by UDOT on ``neoverse-n1``
and by SVE's UMMLA on ``max``.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import edge_machine as machine
import numpy as np
from stage_inputs import images_of

import deploy_kit
from benchmarks import subjects
from benchmarks.subjects import Subject
from deploy_kit import images, recipe
from deploy_kit.accuracy import metrics
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.isolate import Child
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import fp16, fp32, int8_nncf, int8_ort, int8_portable, int8_tensorrt
from deploy_kit.stages import export, simplify
from deploy_kit.store import Store

# Not bf16: ONNX Runtime's processor has no convolution of it, on x86 and on ARM.
FORMS: Mapping[str, tuple[ModuleType, Mapping[str, Any]]] = {
    "fp32": (fp32, {}),
    "fp16": (fp16, {}),
    "int8 portable, max": (int8_portable, {}),
    "int8 portable, depthwise": (int8_portable, {"form": "depthwise"}),
    "int8 portable, narrow sums": (int8_portable, {"reduce_range": True}),
    "int8 tensorrt": (int8_tensorrt, {}),
    "int8 tensorrt, everything": (int8_tensorrt, {"convolutions": "all", "concats": True, "rest": "fp32"}),
    "int8 ort": (int8_ort, {}),
    "int8 nncf": (int8_nncf, {}),
}


@dataclass(frozen=True, kw_only=True)
class Files:
    """A net in several forms, with images for all of them, in one folder that the device can be shown.

    Attributes:
        folder: Holds ``images.npy`` and each form's file.
        forms: Form → file name.
    """

    folder: Path
    forms: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Likeness:
    """One form's logits on ARM beside those of the same file on x86.

    Attributes:
        form: Which.
        equal: Share of logits that are the same to the last bit.
        difference: Largest |difference|, relative to the largest |logit|.
        sqnr_db: ARM against x86; ``inf`` when all are equal.
        agreement: Share of images with the same top-1.
        noise_db: SQNR of x86 against float32: what quantization itself costs.
        noise_arm_db: The same on ARM.
    """

    form: str
    equal: float
    difference: float
    sqnr_db: float
    agreement: float
    noise_db: float
    noise_arm_db: float


def prepare(subject: Subject, folder: Path, forms: tuple[str, ...], n_images: int) -> Files:
    """Export and simplify a net, write it in each form, and `n_images` of the demo's test images for it."""
    preprocess, demo = subject.preprocess, recipe.load_recipe("demo")
    store, part = Store(folder / "store"), demo.export.model_copy(update={"exporter": "torchscript", "tolerance": 1e-4})
    with links.connect_device(links.LOCAL) as connection:
        made, _ = export.run(
            subject.source, part, Context(store=store, connection=connection), images=images_of(images.SYNTHETIC)
        )
        lean, _ = simplify.run(made.onnx, demo.simplify, Context(store=store, connection=connection))
    calibration = images.open_set(subjects.CALIBRATION, preprocess).first(128)
    names = {}
    for form in forms:
        scheme, options = FORMS[form]
        names[form] = form.replace(", ", "-").replace(" ", "-") + ".onnx"
        source = store.path(lean.onnx)
        ranges = schemes.stream(source, calibration, preprocess)
        scheme.SCHEME.apply(source, folder / names[form], scheme.SCHEME.options(**options), ranges)
    seen = images.open_set(subjects.TEST, preprocess).first(n_images)
    np.save(folder / "images.npy", next(seen.batches(preprocess, n_images)))
    return Files(folder=folder, forms=names)


@contextmanager
def device_worker(root: Path, shown: Path) -> Iterator[Child]:
    """Start a worker on the emulated device, which sees the folder `shown` as ``/mnt/host``."""
    package = shown / "package"
    if not package.exists():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(Path(deploy_kit.__file__).parent, package / "deploy_kit", ignore=ignored)
    command = ("env", "PYTHONPATH=/mnt/host/package", "python3", "-m", "deploy_kit.programs.worker")
    with Child(machine.inside(root, command, shown)) as child:
        yield child


def logits(worker: Child, folder: Path, seen_as: str, file: str) -> np.ndarray:
    """Let a worker compute all images with ONNX Runtime: (n, classes) float32."""
    worker.ask("open", file, engine="onnxruntime", path=f"{seen_as}/{file}", options={})
    worker.ask("infer", file, inputs=f"{seen_as}/images.npy", outputs=f"{seen_as}/logits.npy")
    return np.asarray(np.load(folder / "logits.npy"))


def compare(files: Files, root: Path) -> tuple[Likeness, ...]:
    """Compute each form here and on the emulated device."""
    found = []
    with Child() as here, device_worker(root, files.folder) as there:
        reference = logits(here, files.folder, str(files.folder), files.forms["fp32"])
        for form, file in files.forms.items():
            x86 = logits(here, files.folder, str(files.folder), file)
            arm = logits(there, files.folder, "/mnt/host", file)
            found.append(
                Likeness(
                    form=form,
                    equal=float((x86 == arm).mean()),
                    difference=metrics.relative_difference(x86, arm),
                    sqnr_db=metrics.sqnr_db(x86, arm),
                    agreement=metrics.top1_agreement(x86, arm),
                    noise_db=metrics.sqnr_db(reference, x86),
                    noise_arm_db=metrics.sqnr_db(reference, arm),
                )
            )
    return tuple(found)


def table(rows: tuple[Likeness, ...]) -> str:
    """Write rows as Markdown."""
    lines = ["| form | equal logits | largest difference | SQNR | top-1 | x86 to float32 | ARM to float32 |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in rows:
        decibels = (f"{value:.1f} dB" for value in (row.sqnr_db, row.noise_db, row.noise_arm_db))
        sqnr, x86, arm = decibels
        shares = f"{100 * row.equal:.1f} % | {row.difference:.2g} | {sqnr} | {100 * row.agreement:.1f} %"
        lines.append(f"| {row.form} | {shares} | {x86} | {arm} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--net", default="demo", help="demo, or a member of the family such as densenet121")
    parser.add_argument("--size", type=int, default=64, help="px, of a member of the family")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--cpu", default="max", help="max, neoverse-n1, cortex-a53 …")
    asked = parser.parse_args()
    os.environ["QEMU_CPU"] = asked.cpu
    root = machine.build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subject = subjects.demo() if asked.net == "demo" else subjects.seeded(asked.net, folder, asked.size)
        rows = compare(prepare(subject, folder, tuple(FORMS), asked.images), root)
    sys.stdout.write(f"{subject.name}, {asked.images} images, processor '{asked.cpu}':\n\n{table(rows)}\n")


if __name__ == "__main__":
    main()
