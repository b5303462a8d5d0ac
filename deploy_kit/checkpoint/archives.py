"""Zip archives: which of the formats that are one, told by the names of the members."""

from deploy_kit.checkpoint import exported, keras, torchfile, torchscript
from deploy_kit.checkpoint.archive import Archive
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.found import contents_of
from deploy_kit.checkpoint.limits import Budget
from deploy_kit.errors import CheckpointError


def read(archive: Archive, budget: Budget, state_key: str | None) -> Contents:
    """Read a torch, TorchScript, torch.export or Keras archive.

    Raises:
        CheckpointError: Another archive, or one that cannot be read.
    """
    names = archive.names
    if exported.is_exported(names):
        return exported.read(archive, budget)
    if torchscript.is_torchscript(names):
        return torchscript.read(archive, budget)
    if keras.is_keras(names):
        return keras.read_archive(archive)
    if any(name.endswith("/data.pkl") for name in names):
        return contents_of("torch zip", torchfile.read_zip(archive, budget), budget, state_key)
    raise CheckpointError(_foreign(names), hint="give the checkpoint itself")


def _foreign(names: tuple[str, ...]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "not a recognised checkpoint container: a NumPy archive (.npz)"
    shown = ", ".join(f"'{name[:60]}'" for name in names[:3])
    return f"not a recognised checkpoint container: a zip archive of {shown or 'nothing'}"
