"""Verify this bundle: ``python verify.py``. Needs numpy and the engine's own package.

Compares every file with its sha256 in the manifest, the manifest with its own, the engine's version with the one that
the bundle needs, and the engine's outputs on a few images (`golden.npz`) with those of the machine that packed it. A
signature is verified by ``deploykit verify`` or by ``model_signing verify``, with the key of whoever packed the
bundle.

Exit codes: 0 all of it holds · 1 something differs · 2 not a bundle · 3 the engine's package is missing · 4 this
machine has another version of it than the bundle needs.
"""

import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != HERE]  # nothing here hides numpy or json
sys.dont_write_bytecode = True  # the bundle stays as it was packed

import hashlib
import importlib
import importlib.metadata
import json
import re
import runpy
from collections import Counter
from pathlib import Path, PurePosixPath
from typing import Any

UNLISTED = {"manifest.json", "bundle.sig"}


def changed_files(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """Name each file that is missing, differs from the manifest, or is not of the bundle."""
    listed = {file["path"]: file for file in manifest["files"]}
    paths = [path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()]
    found = {path.relative_to(folder).as_posix(): path for path in paths}
    known = {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    inside = {name: foreign_folder(name, known) for name in found}
    linked = sorted(name for name, path in found.items() if path.is_symlink() and not inside[name])
    faults = [f"{name}: is a link" for name in linked]
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    if manifest.get("sha256", "") not in ("", hashlib.sha256(text.encode()).hexdigest()):
        faults.append("manifest.json: changed since it was packed")
    for name, file in sorted(listed.items()):
        if name not in found:
            faults.append(f"{name}: missing")
        elif name not in linked and digest_of(found[name]) != file["sha256"]:
            faults.append(f"{name}: changed since it was packed")
    others = sorted(name for name in found.keys() - listed.keys() - UNLISTED if not inside[name])
    counts = Counter(filter(None, inside.values()))
    sums = [f"{name}/: {foreign(folder / name, n)}" for name, n in sorted(counts.items())]
    return faults + [f"{name}: not of the bundle" for name in others] + sums


def foreign_folder(name: str, known: set[str]) -> str:
    """Return the outermost folder above a file that has nothing of the bundle; empty if all have."""
    above = [parent.as_posix() for parent in PurePosixPath(name).parents]  # the innermost first
    return next((parent for parent in reversed(above) if parent not in known), "")


def foreign(folder: Path, n: int) -> str:
    """Say what a foreign folder is; none is let pass, as Python can import from any folder beside predict.py."""
    if (folder / "pyvenv.cfg").is_file():
        return f"a virtual environment of {n:,} files, not of the bundle: make it outside of this folder"
    return f"{n:,} files that are not of the bundle" if n > 1 else "1 file that is not of the bundle"


def digest_of(path: Path) -> str:
    """Hash a file in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def version_fault(engine: dict[str, Any], here: str) -> str:
    """Return why this version cannot run the engine; empty if it can."""
    numbers, wanted = ([int(n) for n in re.findall(r"\d+", text)[:3]] for text in (here, engine["minimum"]))
    if engine["exact"] and here != engine["minimum"]:
        return (
            f"{engine['package']} {here}: the engine needs exactly {engine['minimum']}; rebuild it: {engine['rebuild']}"
        )
    return f"{engine['package']} {here}: the engine needs {engine['minimum']} or later" if numbers < wanted else ""


def golden_fault(folder: Path, manifest: dict[str, Any]) -> tuple[str, str]:
    """Run the golden images; return what differs, empty if nothing does, and what was found."""
    import numpy as np

    predict = runpy.run_path(str(folder / "predict.py"))  # from its source: what Python compiled before is not read
    with np.load(folder / manifest["golden"]["file"], allow_pickle=False) as data:
        images, wanted = data["images"], data["logits"]
    classifier = predict["Classifier"](folder)
    found = classifier.logits(np.stack([classifier.prepare(image, ready=True) for image in images]))
    difference = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    said = (
        f"{len(images)} images, {difference:.2g} of the largest logit off, at most {manifest['golden']['tolerance']:g}"
    )
    return ("" if difference <= manifest["golden"]["tolerance"] else said), said


def main() -> int:
    """Verify the bundle that this file lies in; return the exit code."""
    folder = Path(HERE)
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        faults = changed_files(folder, manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"FAILED  not a bundle: {error}")
        return 2
    if faults:
        print(*(f"FAILED  {fault}" for fault in faults), sep="\n")
        return 1
    print(f"ok      {len(manifest['files'])} files are what was packed")
    engine = manifest["engine"]
    try:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see openvino's engine.py
        package = importlib.import_module(engine["package"])
        here = str(getattr(package, "__version__", "")) or importlib.metadata.version(engine["package"])
    except ImportError as error:
        wanted = f"{engine['package']}{'==' if engine['exact'] else '>='}{engine['minimum']}"
        print(f"FAILED  {engine['package']}: {error}; pip install '{wanted}'")
        return 3
    fault = version_fault(engine, here)
    if fault:
        print(f"FAILED  {fault}")
        return 4
    print(f"ok      {engine['package']} {here} (built with {engine['built_with'] or 'an unknown version'})")
    try:
        fault, said = golden_fault(folder, manifest)
    except Exception as error:  # noqa: BLE001  # each runtime raises classes of its own
        fault, said = f"not computed: {' '.join(str(error).split())}", ""
    print(f"FAILED  golden outputs: {fault}" if fault else f"ok      golden outputs: {said}")
    if (folder / "bundle.sig").is_file():
        print("note    signed; not verified here: deploykit verify BUNDLE --public-key KEY")
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
