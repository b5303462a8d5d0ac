"""deploykit: trained DenseNet checkpoints to verified, measured engines.

    import deploy_kit

    graph = deploy_kit.export("densenet121.pth", input=(224, 224), mean=MEAN, std=STD, images="val/")
    int8 = deploy_kit.quantize(graph, "int8", calibration="calib/")
    engine = deploy_kit.build(int8, "openvino")
    assert deploy_kit.check(engine, max_drop=0.3).passed

or all of it at once, as ``deploykit run`` does:

    report = deploy_kit.deploy("demo")

Names are imported on first use: ``import deploy_kit`` loads nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deploy_kit.api import (
        bench,
        build,
        check,
        deploy,
        export,
        find_mix,
        load,
        load_recipe,
        load_report,
        pack,
        quantize,
        simplify,
        slim,
        speed_up,
        verify,
        write_report,
    )
    from deploy_kit.api.mixing import Mixed
    from deploy_kit.base.errors import (
        BuildError,
        CheckError,
        CheckpointError,
        DeployKitError,
        DeviceError,
        EngineCrashError,
        ExportError,
        InputError,
        LinkLostError,
        MeasurementError,
        MissingPackageError,
        OutputError,
        QuantizeError,
        RecipeError,
        RequestError,
        SimplifyError,
        SlimError,
        StageError,
        StoreError,
        UnknownNameError,
    )
    from deploy_kit.base.progress import ProgressCallback, ProgressEvent
    from deploy_kit.delivery.manifest import Manifest
    from deploy_kit.delivery.predictor import Prediction, Predictor
    from deploy_kit.delivery.verification import BundleFinding, Verification
    from deploy_kit.devices.links import find_device
    from deploy_kit.recipe import Recipe
    from deploy_kit.records.artifacts import (
        Artifact,
        BareInput,
        CheckpointFacts,
        Device,
        Exported,
        Preprocess,
        Proof,
        ReferenceLogits,
        TensorSpec,
    )
    from deploy_kit.records.densenet import DenseNetSpec
    from deploy_kit.records.made_by import MadeBy
    from deploy_kit.records.measurements import Bench, Environment, Measurement, NotRun, SpeedUp
    from deploy_kit.records.mixed_precision import Mix
    from deploy_kit.records.parity import Diagnosis, Drop, Flips, Scores
    from deploy_kit.records.recommendation import Recommendation
    from deploy_kit.records.results import EngineRow, Limits, ParityReport, PassRow, Report, Simplified
    from deploy_kit.records.slimming import Slimmed, Slimming
    from deploy_kit.records.verdict import Verdict
    from deploy_kit.store import Store

__version__ = "0.2.0"

# Module → the public names that it holds, so that each is imported on first use.
_NAMES = {
    "api": (
        "bench build check deploy export find_mix load load_recipe load_report pack quantize simplify slim speed_up "
        "verify write_report"
    ),
    "api.mixing": "Mixed",
    "base.errors": (
        "BuildError CheckError CheckpointError DeployKitError DeviceError EngineCrashError ExportError "
        "InputError LinkLostError MeasurementError MissingPackageError OutputError QuantizeError RecipeError "
        "RequestError SimplifyError SlimError StageError StoreError UnknownNameError"
    ),
    "base.progress": "ProgressCallback ProgressEvent",
    "delivery.manifest": "Manifest",
    "delivery.predictor": "Prediction Predictor",
    "delivery.verification": "BundleFinding Verification",
    "devices.links": "find_device",
    "recipe": "Recipe",
    "records.artifacts": (
        "Artifact BareInput CheckpointFacts Device Exported Preprocess Proof ReferenceLogits TensorSpec"
    ),
    "records.densenet": "DenseNetSpec",
    "records.made_by": "MadeBy",
    "records.measurements": "Bench Environment Measurement NotRun SpeedUp",
    "records.mixed_precision": "Mix",
    "records.parity": "Diagnosis Drop Flips Scores",
    "records.recommendation": "Recommendation",
    "records.results": "EngineRow Limits ParityReport PassRow Report Simplified",
    "records.slimming": "Slimmed Slimming",
    "records.verdict": "Verdict",
    "store": "Store",
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [
    "Artifact",
    "BareInput",
    "Bench",
    "BuildError",
    "BundleFinding",
    "CheckError",
    "CheckpointError",
    "CheckpointFacts",
    "DenseNetSpec",
    "DeployKitError",
    "Device",
    "DeviceError",
    "Diagnosis",
    "Drop",
    "EngineCrashError",
    "EngineRow",
    "Environment",
    "ExportError",
    "Exported",
    "Flips",
    "InputError",
    "Limits",
    "LinkLostError",
    "MadeBy",
    "Manifest",
    "Measurement",
    "MeasurementError",
    "MissingPackageError",
    "Mix",
    "Mixed",
    "NotRun",
    "OutputError",
    "ParityReport",
    "PassRow",
    "Prediction",
    "Predictor",
    "Preprocess",
    "ProgressCallback",
    "ProgressEvent",
    "Proof",
    "QuantizeError",
    "Recipe",
    "RecipeError",
    "Recommendation",
    "ReferenceLogits",
    "Report",
    "RequestError",
    "Scores",
    "Simplified",
    "SimplifyError",
    "SlimError",
    "Slimmed",
    "Slimming",
    "SpeedUp",
    "StageError",
    "Store",
    "StoreError",
    "TensorSpec",
    "UnknownNameError",
    "Verdict",
    "Verification",
    "__version__",
    "bench",
    "build",
    "check",
    "deploy",
    "export",
    "find_device",
    "find_mix",
    "load",
    "load_recipe",
    "load_report",
    "pack",
    "quantize",
    "simplify",
    "slim",
    "speed_up",
    "verify",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'deploy_kit' has no attribute '{name}'")
    return getattr(import_module(f"deploy_kit.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
