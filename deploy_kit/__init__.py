"""deploykit: trained DenseNet checkpoints to verified, measured engines.

    from deploy_kit import Store, deploy, find_device, load_recipe

    report = deploy(load_recipe("demo"), find_device("local"), Store(Path(".deploykit")))

Names are imported on first use: ``import deploy_kit`` loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_kit.base.errors import DeployKitError
    from deploy_kit.devices.links import find_device
    from deploy_kit.pipeline import deploy
    from deploy_kit.recipe import Recipe, load_recipe
    from deploy_kit.records.artifacts import Artifact, Preprocess
    from deploy_kit.records.measurements import Measurement
    from deploy_kit.records.results import ParityReport, Report
    from deploy_kit.store import Store

__version__ = "0.1.0"

_HOMES = {
    "Artifact": ("records", "Artifact"),
    "DeployKitError": ("errors", "DeployKitError"),
    "Measurement": ("measurements", "Measurement"),
    "ParityReport": ("results", "ParityReport"),
    "Preprocess": ("records", "Preprocess"),
    "Recipe": ("recipe", "Recipe"),
    "Report": ("results", "Report"),
    "Store": ("store", "Store"),
    "deploy": ("pipeline", "deploy"),
    "find_device": ("devices", "find"),
    "load_recipe": ("recipe", "load_recipe"),
}

__all__ = [
    "Artifact",
    "DeployKitError",
    "Measurement",
    "ParityReport",
    "Preprocess",
    "Recipe",
    "Report",
    "Store",
    "deploy",
    "find_device",
    "load_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deploy_kit' has no attribute '{name}'")
    module, attribute = _HOMES[name]
    return getattr(import_module(f"deploy_kit.{module}"), attribute)
