"""Is this bundle what was packed, and does its engine answer on a machine as it did where it was packed?"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deploy_kit import engines
from deploy_kit.base.errors import DeviceError, InputError, MissingPackageError
from deploy_kit.base.versions import is_older
from deploy_kit.delivery import golden, runtimes, signature
from deploy_kit.delivery.contents import BundleContents
from deploy_kit.delivery.manifest import Manifest
from deploy_kit.devices import inference
from deploy_kit.devices.links import Connection
from deploy_kit.images import to_tensors
from deploy_kit.records.artifacts import Preprocess


@dataclass(frozen=True, kw_only=True)
class BundleFinding:
    """Answer to one question about a bundle.

    Attributes:
        what: What was asked: ``files``, ``signature``, ``version`` or ``golden outputs``.
        ok: Whether it holds; None where it was not asked.
        detail: What was found.
    """

    what: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What the verification of a bundle found.

    Attributes:
        bundle: Path of the bundle.
        name: Name of the bundle.
        device: Machine that computed the golden outputs.
        findings: Answers, in the order of the questions; after a no about files or signature nothing more is asked.
    """

    bundle: str
    name: str
    device: str
    findings: tuple[BundleFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found that does not hold."""
        return all(finding.ok is not False for finding in self.findings)


def verify_bundle(contents: BundleContents, connection: Connection, public_key: Path | None = None) -> Verification:
    """Verify a bundle: its files, its signature, the engine's version on a machine, and its outputs there.

    Args:
        contents: The bundle.
        connection: Machine to run the engine on.
        public_key: PEM file with the key of whoever packed it; None asks for no signature.

    Raises:
        MissingPackageError: The engine's package is not on the machine.
        DeviceError: The machine has another version of it than the bundle needs, or cannot run the engine.
        EngineCrashError: Native code died.
    """
    findings = [_files(contents), signature.examine(contents, public_key)]
    if all(finding.ok is not False for finding in findings):
        findings.append(BundleFinding(what="version", ok=True, detail=expect_version(contents.manifest, connection)))
        findings.append(_golden(contents, connection))
    return Verification(
        bundle=str(contents.path),
        name=contents.manifest.name,
        device=connection.device.name,
        findings=tuple(findings),
    )


def expect_version(manifest: Manifest, connection: Connection) -> str:
    """Return the version of the engine's package on a machine, in words.

    Raises:
        UnknownNameError: No engine has this name.
        InputError: The manifest names another package than the engine's.
        MissingPackageError: It is not installed.
        DeviceError: It cannot run the bundle's engine.
    """
    engine, device = manifest.engine, connection.device.name
    entry = engines.CATALOGUE.get(engine.name)
    if engine.package != entry.package:  # asked for by its name, a package may be imported
        raise InputError(f"{engine.name}: expected the package '{entry.package}', the manifest names another")
    lack = connection.lacks(engine.package)
    if lack:
        raise MissingPackageError(f"'{device}' lacks the package '{engine.package}', which runs this bundle", hint=lack)
    here = entry.version_in(connection.environment.versions)
    other = engine.exact and here != engine.minimum
    if here and (other or is_older(here, engine.minimum)):
        need = f"exactly {engine.minimum}" if engine.exact else f"{engine.minimum} or later"
        raise DeviceError(
            f"'{device}' has {engine.package} {here}, and this bundle needs {need} ({engine.minimum_source})",
            hint=f"deploykit build {engine.graph} --engine {engine.name}"
            if engine.graph
            else f"pip install '{engine.requirement}'",
        )
    return f"{engine.package} {here} (built with {engine.built_with or 'a version that was not recorded'})"


def golden_tensors(images: np.ndarray, preprocess: Preprocess) -> np.ndarray:
    """Turn golden images, which have the network's size already, into inputs of the engine: see `to_tensors`."""
    return np.stack([to_tensors(image, replace(preprocess, resize=None)) for image in images])


def target_of(contents: BundleContents) -> inference.InferenceTarget:
    """Return what a worker loads of a bundle, which came from somebody else.

    Raises:
        InputError: The engine's file would work without end.
    """
    engine = contents.manifest.engine
    runtimes.CATALOGUE.get(engine.name).verify(contents.engine_file)
    return inference.InferenceTarget(
        engine=engine.name, path=contents.engine_file, options=engine.options, bounded=True
    )


def _files(contents: BundleContents) -> BundleFinding:
    n = len(contents.manifest.files)
    detail = "; ".join(contents.faults) or f"{n} files are what was packed"
    return BundleFinding(what="files", ok=not contents.faults, detail=detail)


def _golden(contents: BundleContents, connection: Connection) -> BundleFinding:
    manifest = contents.manifest
    n_classes = manifest.outputs[0].shape[1]
    assert isinstance(n_classes, int)
    images, wanted = golden.read_golden(
        contents.file(manifest.golden.file), manifest.golden, manifest.preprocess, n_classes
    )
    with inference.loaded_engine(connection, target_of(contents)) as engine:
        found = engine.ask(golden_tensors(images, manifest.preprocess), len(images))
    if found.shape != wanted.shape:
        return BundleFinding(what="golden outputs", ok=False, detail=f"expected {wanted.shape}, found {found.shape}")
    off = golden.difference(found, wanted)
    detail = f"{len(images)} images, {off:.2g} of the largest logit off, at most {manifest.golden.tolerance:g} allowed"
    return BundleFinding(what="golden outputs", ok=off <= manifest.golden.tolerance, detail=detail)
