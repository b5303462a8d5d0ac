"""README.md of a bundle: what it is, how accurate, its limits, how to run it and how to verify it."""

import re
from collections.abc import Sequence

from deploy_kit.delivery.manifest import Manifest
from deploy_kit.records.engine_table import size

_SCORES = {
    "softmax": "softmax of the outputs: one class an image, the scores sum to 1",
    "sigmoid": "sigmoid of each output: an image may be of several classes",
    "none": "the outputs as they are: the network ends with its own softmax or sigmoid",
}
_SHOWN = 20


def model_card(manifest: Manifest) -> str:
    """Write the model card of a bundle; every number is one of the manifest's."""
    sections = (
        _head(manifest),
        _run(manifest),
        _accuracy(manifest),
        _input(manifest),
        _files(manifest),
        _origin(manifest),
    )
    return "\n".join(line for section in sections for line in section) + "\n"


def escaped(text: str) -> str:
    """Write a text that somebody else chose so that Markdown shows it as it is, on one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|&~$])", r"\\\1", " ".join(text.split()))


def _head(m: Manifest) -> list[str]:
    engine = m.engine
    exact = "exactly" if engine.exact else "at least"
    rows = [
        ("network", f"{m.checkpoint.architecture}, {m.checkpoint.parameters:,} parameters"),
        ("precision", m.precision),
        ("engine", f"{engine.package}, {exact} {engine.minimum} ({engine.minimum_source})"),
        (
            "built with",
            f"{engine.package} {engine.built_with}" if engine.built_with else "a version that was not recorded",
        ),
        ("accuracy", escaped(m.check.accuracy.text)),
        ("latency", _latency(m)),
    ]
    if all(file.sha256 != engine.sha256 for file in m.files):
        why = "its files here carry the names of the classes, or are several" if m.classes else "it is several files"
        rows.append(("sha256 of the engine in its report", f"{engine.sha256} ({why})"))
    return [f"# {escaped(m.name)}", "", *_table(("what", "value"), rows), ""]


def _latency(m: Manifest) -> str:
    found = m.latency
    if found is None:
        return "not measured"
    marks = [mark for mark in (found.emulated, f"INVALID: {'; '.join(found.invalid)}" if found.invalid else "") if mark]
    text = f"{found.p50_ms:.3f} ms at batch {found.batch} (median of {found.n:,} runs, {found.span}, {found.scenario})"
    machine = ", ".join(f"{what} {value}" for what, value in found.machine)
    return f"{text} on {machine}" + "".join(f" ({mark})" for mark in marks)


def _run(m: Manifest) -> list[str]:
    lines = [
        "## Run it", "",
        "```", f"pip install numpy pillow '{m.engine.requirement}'", "python predict.py photo.jpg", "python verify.py",
        "```", "",
        "Make a virtual environment outside of this folder: `verify.py` lets no file pass that was not packed.", "",
        "`verify.py` compares every file with its sha256, and the engine's answers on this machine with those of the",
        "machine that packed it. In Python:", "",
        "```python", "import sys", "sys.path.insert(0, \"path/to/this/folder\")", "from predict import Classifier",
        "classifier = Classifier()", "print(classifier.predict(\"photo.jpg\"))", "```", "",
    ]  # fmt: skip
    if any(file.path.startswith("cpp/") for file in m.files):
        lines += [
            "`cpp/` is the same in C++17, for frames that have the network's size already:", "",
            "```", "cmake -S cpp -B ../build && cmake --build ../build",
            f"../build/classify {m.engine.file} cpp/golden.ppm", "```", "",
        ]  # fmt: skip
    if any(file.path.startswith("triton/") for file in m.files):
        taken = "frames, uint8 with channels last" if m.preprocess.input_pixels else "the normalized tensor"
        lines += [
            f"`triton/` is a model repository for `tritonserver --model-repository triton`: it takes {taken}.",
            "",
        ]
    if m.engine.rebuild:
        lines += [
            f"The engine fits one version of {m.engine.package} and one kind of GPU. `{m.engine.graph}` is its graph;",
            "for another version or GPU:", "", "```", m.engine.rebuild, "```", "",
        ]  # fmt: skip
    return lines


def _accuracy(m: Manifest) -> list[str]:
    v, check = m.check, m.images
    rows = [("images", f"{check.n:,} of {escaped(check.name)} (sha256 of the set {_short(check.sha256)})")]
    if v.top1 is not None and v.top1_reference is not None:
        rows.append(("top-1", f"{100 * v.top1:.2f} %, the checkpoint {100 * v.top1_reference:.2f} %"))
    if v.drop is not None:
        interval = f"{v.drop.points:+.2f} [{v.drop.low:+.2f}, {v.drop.high:+.2f}] points, 95 % interval of the pairs"
        rows.append((f"{v.drop.what} drop", interval))
    rows += [
        ("agreement with the checkpoint", f"{100 * v.agreement:.2f} %"),
        ("SQNR of the logits", f"{v.sqnr_db:.1f} dB"),
        (
            "limits",
            ", ".join(f"{k} {x:g}" for k, x in vars(v.limits).items() if x is not None) or "none were asked for",
        ),
        *(("remark", escaped(remark)) for remark in v.remarks),
    ]
    return ["## Accuracy", "", *_table(("what", "value"), rows), ""]


def _input(m: Manifest) -> list[str]:
    p = m.preprocess
    cut = (
        f"the shorter side scaled to {p.resize} px ({p.interpolation}, antialiased, Pillow), the center cut out"
        if p.resize is not None
        else "images must have this size"
    )
    names = [escaped(name) for name in m.classes[:_SHOWN]]
    more = f", … ({len(m.classes):,} in all, in `manifest.json`)" if len(m.classes) > _SHOWN else ""
    rows = [
        ("image", f"{p.height}×{p.width} px, {p.color}; {cut}"),
        (
            "values",
            f"(pixel / 255 - mean) / std, mean {list(p.mean)}, std {list(p.std)}"
            + "; the engine computes it, and takes the pixels in RGB order" * p.input_pixels,
        ),
        *(
            (kind, f"`{s.name}` {s.dtype} {list(s.shape)}")
            for kind, (s,) in (("input", m.inputs), ("output", m.outputs))
        ),
        ("scores", _SCORES[m.scores]),
        ("classes", ", ".join(names) + more if names else f"{m.outputs[0].shape[1]}, without names"),
    ]
    return ["## Input and output", "", *_table(("what", "value"), rows), ""]


def _files(m: Manifest) -> list[str]:
    rows = [
        (f"`{file.path}`", size(file.size), f"`{_short(file.sha256)}`") for file in m.files if file.path != "README.md"
    ]
    return ["## Files", "", *_table(("file", "size", "sha256"), rows), ""]


def _origin(m: Manifest) -> list[str]:
    rows = [
        ("checkpoint", f"{escaped(m.checkpoint.name)}, sha256 `{m.checkpoint.sha256}`"),
        ("graph", f"sha256 `{m.engine.graph_sha256}`" if m.engine.graph_sha256 else "not recorded"),
        *((escaped(what), escaped(value)) for what, value in m.made_by.rows),
        ("packed by", f"deploykit {m.deploykit}"),
    ]
    if m.calibration is not None:
        n, name = m.calibration.n, escaped(m.calibration.name)
        rows.insert(
            2, ("calibrated with", f"{n:,} images of {name} (sha256 of the set {_short(m.calibration.sha256)})")
        )
    return ["## Where it comes from", "", *_table(("what", "value"), rows)]


def _short(digest: str) -> str:
    return f"{digest[:12]}…" if digest else "not recorded"


def _table(headings: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    lines = [headings, tuple("---" for _ in headings), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
