"""Zip archives: which of the checkpoint formats one is, by the names of its members."""

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.formats import exported_program, torchscript
from deploy_kit.checkpoint.formats.keras_files import keras_file
from deploy_kit.checkpoint.formats.limits import ReadLimits
from deploy_kit.checkpoint.formats.pickled import torch_file
from deploy_kit.checkpoint.formats.pickled.pickled_contents import contents_of
from deploy_kit.checkpoint.formats.zip_archive import Archive


def read_zip(archive: Archive, budget: ReadLimits, state_key: str | None) -> Contents:
    """Read a torch, TorchScript, torch.export or Keras archive.

    Raises:
        CheckpointError: It is another archive, or cannot be read.
    """
    names = archive.names
    if exported_program.is_exported(names):
        return exported_program.read_exported_program(archive, budget)
    if torchscript.is_torchscript(names):
        return torchscript.read_torchscript(archive, budget)
    if keras_file.is_keras(names):
        return keras_file.read_archive(archive)
    if any(name.endswith("/data.pkl") for name in names):
        return contents_of("torch zip", torch_file.read_zip(archive, budget), budget, state_key)
    raise CheckpointError(_foreign(names), hint="give the checkpoint itself")


def _foreign(names: tuple[str, ...]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "not a recognised checkpoint container: a NumPy archive (.npz)"
    shown = ", ".join(f"'{name[:60]}'" for name in names[:3])
    return f"not a recognised checkpoint container: a zip archive of {shown or 'nothing'}"
