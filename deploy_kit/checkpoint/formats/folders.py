"""Folders around a checkpoint: which files beside it speak of it, and what a folder in its place is."""

import sys
from pathlib import Path

from deploy_kit.base.errors import InputError
from deploy_kit.base.plain_text import shell_word

CONFIG, PROCESSOR, BUNDLE = "config.json", "preprocessor_config.json", "configs/metadata.json"
_MAX_LISTED = 200
# Files of weights, as libraries call them; the first that is there is the one to give.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "model.pt", "model.pth", "model.keras", "best_model.pth")


def files_beside(checkpoint: Path) -> tuple[Path, ...]:
    """List the files beside a checkpoint that may say something of it, whether they do or not."""
    home = checkpoint.parent
    rows = (home / CONFIG, home / PROCESSOR, home.parent / BUNDLE, home / BUNDLE)
    return tuple(file for file in rows if file != checkpoint and file.is_file())


def folder_refusal(path: Path) -> InputError:
    """Make the error of a folder in the place of a checkpoint, with the way to a file."""
    try:
        names = {entry.name for _, entry in zip(range(_MAX_LISTED), path.iterdir(), strict=False)}
    except OSError as error:
        return InputError(f"{path}: a folder that cannot be read: {error.strerror}", hint="give a file")
    what, cure = _described(path, names)
    return InputError(f"{path}: expected a file, found {what}", hint=cure)


def _described(path: Path, names: set[str]) -> tuple[str, str]:
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        files = f"{shell_word(path)} {shell_word(path.name)}.pth"
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {files}"
        return "a distributed checkpoint of torch", f"make one file of it: {command}"
    if any(name.endswith("safetensors.index.json") for name in names):
        return "a safetensors checkpoint in parts", f"merge them: {merge_command(path)}"
    if "data.pkl" in names and "data" in names:
        pack = f"{_python()} -m zipfile -c {shell_word(path.name)}.pth {shell_word(path.name)}"
        command = f"(cd {shell_word(path.parent)} && {pack})"
        return "an unpacked torch file", f"pack it again: {command}"
    if "saved_model.pb" in names:
        return "a TensorFlow SavedModel", "load it in Keras and save a .keras file, or export it to ONNX with tf2onnx"
    if "_METADATA" in names or "_CHECKPOINT_METADATA" in names:
        return "a Flax checkpoint (Orbax)", "save its parameters with the names of a torch state dict as safetensors"
    known = next((name for name in _WEIGHTS if name in names), None)
    known = known or next((f"models/{name}" for name in _WEIGHTS if (path / "models" / name).is_file()), None)
    return "a folder", f"give the file in it: {path / known}" if known else "give the file of weights in it"


def merge_command(folder: Path) -> str:
    """Return a command that merges the parts of a safetensors checkpoint into one file in the folder at hand."""
    return (
        f'{_python()} -c "import pathlib, sys; from safetensors.torch import load_file, save_file; '
        "files = sorted(pathlib.Path(sys.argv[1]).glob('*-of-*.safetensors')); "
        "save_file({k: v for f in files for k, v in load_file(f).items()}, 'merged.safetensors')\" "
        + shell_word(folder)
    )


def _python() -> str:
    return Path(sys.executable).name
