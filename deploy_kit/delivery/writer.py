"""All that a bundle holds → a folder or a zip, whole or not at all, and the same bytes for the same inputs."""

import os
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy_kit.base.errors import InputError, StoreError
from deploy_kit.base.live_folder import live_folder
from deploy_kit.base.whole_files import parts_of, sha256_of
from deploy_kit.delivery import golden, manifest, model_card, triton
from deploy_kit.delivery.manifest import Manifest, PackedFile
from deploy_kit.delivery.runtimes import FILES, PackedRuntime
from deploy_kit.delivery.triton import quoted
from deploy_kit.graph import onnx_bounds, onnx_file

GRAPH = "graph/model.onnx"
_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say


@dataclass(frozen=True, kw_only=True)
class BundleParts:
    """What goes into a bundle.

    Attributes:
        manifest: All that it says of itself, but for its files.
        runtime: What its engine needs.
        engine: The engine's main file; what belongs to it (`whole_files.parts_of`) goes along.
        graph: ONNX graph that the engine was built from.
        images: Golden images, uint8.
        logits: (n, K) float32 outputs of the engine on them.
        triton: Whether a model repository for Triton goes along, where the engine has a backend there.
    """

    manifest: Manifest
    runtime: PackedRuntime
    engine: Path
    graph: Path
    images: np.ndarray
    logits: np.ndarray
    triton: bool


def verify_target(out: Path) -> None:
    """Refuse to write where a bundle cannot be put, before any work.

    Raises:
        InputError: It cannot be written there, or what is there is no bundle.
    """
    above = next(folder for folder in out.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{above}: expected a folder to write to", hint="choose another --out")
    if out.is_dir() and any(out.iterdir()) and not (out / manifest.FILE).is_file():
        raise InputError(f"{out}: exists, and is not a bundle", hint="choose another --out")
    if (out.exists() and out.is_dir() == _is_zip(out)) or (out.is_file() and not zipfile.is_zipfile(out)):
        raise InputError(f"{out}: exists, and is not a bundle", hint="choose another --out")


def write_bundle(parts: BundleParts, out: Path, sign: Callable[[Path], None] | None = None) -> Manifest:
    """Write a bundle; an earlier one in its place is replaced.

    Args:
        parts: What goes into it.
        out: Folder to write, or a file that ends in ``.zip``.
        sign: Signs the finished folder.

    Returns:
        The manifest as it was written.

    Raises:
        InputError: It cannot be put there; see `verify_target`.
        StoreError: No space or no permission.
    """
    verify_target(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with live_folder(out.parent, f".{out.name}.") as aside:
            folder = aside / "bundle"
            folder.mkdir()
            written = _fill(parts, folder)
            if sign is not None:
                sign(folder)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            finished = _zipped(folder, aside / "bundle.zip") if _is_zip(out) else folder
            _put(finished, out, aside / "replaced")
    except OSError as error:
        raise StoreError(
            f"{out}: cannot be written: {error.strerror or error}", hint="free some space or choose another --out"
        ) from error
    return written


def _is_zip(out: Path) -> bool:
    return out.suffix.lower() == ".zip"


def _fill(parts: BundleParts, folder: Path) -> Manifest:
    """Write all files of a bundle, the manifest last."""
    m, runtime, cpp = parts.manifest, parts.runtime, folder / "cpp"
    for part in _engine_files(parts.engine):
        _copy(part, folder / part.name, m)
    if runtime.packs_graph:
        (folder / GRAPH).parent.mkdir()
        _copy(parts.graph, folder / GRAPH, m)
    for file in (FILES / "predict.py", FILES / "verify.py", runtime.program):
        shutil.copyfile(file, folder / file.name)
    (folder / golden.FILE).write_bytes(golden.packed(parts.images, parts.logits))
    if runtime.cpp is not None:
        cpp.mkdir()
        for file in (FILES / "cpp" / "frame.h", *sorted(runtime.cpp.iterdir())):
            shutil.copyfile(file, cpp / file.name)
        (cpp / "bundle.h").write_text(_constants(m), encoding="utf-8")
        (cpp / "golden.ppm").write_bytes(_netpbm(parts.images[0]))
    if runtime.triton and parts.triton:
        _write_triton(parts, folder)
    if m.classes:
        (folder / triton.LABELS).write_text("".join(f"{name}\n" for name in m.classes), encoding="utf-8")
    m = replace(m, files=_listed(folder))
    (folder / "README.md").write_text(model_card.model_card(m), encoding="utf-8")
    m = replace(m, files=_listed(folder))
    (folder / manifest.FILE).write_text(manifest.dump_manifest(m), encoding="utf-8")
    return m


def _engine_files(engine: Path) -> list[Path]:
    """List the files that an engine needs where it runs: of passports only that of a plan, which its engine reads."""
    own = f"{engine.name}.passport.json" if engine.suffix == ".plan" else ""
    return [part for part in parts_of(engine) if part.suffix != ".json" or part.name == own]


def _copy(source: Path, target: Path, m: Manifest) -> None:
    """Copy a file of the engine; an ONNX file without names of the classes gets those of the bundle."""
    shutil.copyfile(source, target)
    if m.classes and onnx_bounds.is_onnx(target) and not onnx_file.classes(onnx_file.load(target)):
        onnx_file.append_classes(target, m.classes)


def _write_triton(parts: BundleParts, folder: Path) -> None:
    m = parts.manifest
    model = folder / "triton" / m.name
    (model / "1").mkdir(parents=True)
    for part in _engine_files(parts.engine):
        shutil.copyfile(folder / part.name, model / "1" / part.name)
    if m.classes:
        (model / triton.LABELS).write_text("".join(f"{name}\n" for name in m.classes), encoding="utf-8")
    text = triton.config(
        m.name, parts.runtime.triton, m.inputs[0], m.outputs[0], file=parts.engine.name, labelled=bool(m.classes)
    )
    (model / "config.pbtxt").write_text(text, encoding="utf-8")


def _listed(folder: Path) -> tuple[PackedFile, ...]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        PackedFile(path=path.relative_to(folder).as_posix(), sha256=sha256_of(path), size=path.stat().st_size)
        for path in sorted(files, key=lambda path: path.relative_to(folder).as_posix())
    )


def _constants(m: Manifest) -> str:
    """Write what the C++ programs must know as constants."""
    p = m.preprocess
    mean, std = (", ".join(f"{float(np.float32(value))!r}f" for value in values) for values in (p.mean, p.std))
    batch = m.inputs[0].shape[0]
    batch = batch if isinstance(batch, int) else 1
    names = "".join(f"    {quoted(name)},\n" for name in m.classes)
    return f"""// Constants of this bundle, from manifest.json.
#pragma once
#include <cstddef>
#include <cstdint>

namespace bundle {{
using Element = {"std::uint8_t" if p.input_pixels else "float"};  // of the input
constexpr bool kPixels = {"true" if p.input_pixels else "false"};  // the engine takes frames and normalizes them
constexpr std::size_t kShape[] = {{{", ".join(map(str, (batch, *p.shape)))}}};  // of the input
constexpr std::size_t kBatch = {batch};  // images that one run takes
constexpr std::size_t kChannels = {p.channels}, kHeight = {p.height}, kWidth = {p.width};
constexpr std::size_t kClasses = {m.outputs[0].shape[1]}, kNames = {len(m.classes)};
constexpr bool kReversed = {"true" if p.color == "bgr" else "false"};  // channels in BGR order
constexpr float kMean[] = {{{mean}}};
constexpr float kStd[] = {{{std}}};
constexpr const char* kInput = {quoted(m.inputs[0].name)};
constexpr const char* kOutput = {quoted(m.outputs[0].name)};
constexpr const char* kName[] = {{
{names}    nullptr}};
}}  // namespace bundle
"""


def _netpbm(pixels: np.ndarray) -> bytes:
    """Write one image as binary PGM (gray) or PPM (RGB)."""
    kind = b"P5" if pixels.ndim == 2 else b"P6"
    return b"%s\n%d %d\n255\n" % (kind, pixels.shape[1], pixels.shape[0]) + np.ascontiguousarray(pixels).tobytes()


def _zipped(folder: Path, target: Path) -> Path:
    """Write a zip whose bytes follow from the files alone: sorted, without times, nothing compressed by any version."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED, allowZip64=False) as archive:
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for name in names:
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            with (folder / name).open("rb") as source, archive.open(entry, "w") as member:
                shutil.copyfileobj(source, member, 1 << 20)
    return target


def _put(finished: Path, out: Path, replaced: Path) -> None:
    """Put a finished bundle in its place; what was there goes only once that is done."""
    if out.is_dir():
        out.rename(replaced)
        try:
            finished.rename(out)
        finally:
            if not out.exists():  # no space, or a signal
                replaced.rename(out)
    else:
        finished.replace(out)
