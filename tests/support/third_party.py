"""A third party's distribution in a temporary folder: an engine, a gauge, a scenario and a link, by entry points alone.

Its engine computes with ONNX's reference evaluator, its gauge reads a meter of 7 W, its scenario is a closed loop, and
its link reaches this machine. A plugin: `pytest_plugins = ["third_party"]`.
"""

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy_kit.base.catalogue import Catalogue
from deploy_kit.machine import environment

VENDOR = "toy_vendor"
VERSION = "1.4"
MODULES = {
    "engine": """
from dataclasses import dataclass

import numpy as np

from deploy_kit.base.progress import no_progress
from deploy_kit.engines import Engine
from deploy_kit.records.artifacts import Proof


@dataclass(frozen=True, kw_only=True)
class ToyOptions:
    threads: int = 0


def build(onnx_file, folder, options, on_progress=no_progress):
    (folder / "model.toy").write_bytes(onnx_file.read_bytes())


def prove_precision(path, options):
    import onnx

    n = sum(node.op_type == "Conv" for node in onnx.load_from_string(path.read_bytes()).graph.node)
    return Proof(source="the toy file", counts=(("Conv", "fp32", n),))


class ToySession:
    def __init__(self, path):
        import onnx
        from onnx.reference import ReferenceEvaluator

        model = onnx.load_from_string(path.read_bytes())
        self.evaluator, self.input = ReferenceEvaluator(model), model.graph.input[0].name
        self.batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
        self.settings = {"arithmetic": "toy"}

    def bind(self, image):
        self.image = image

    def run(self):
        self.logits = self.evaluator.run(None, {self.input: self.image})[0]

    def fetch(self):
        return np.asarray(self.logits, np.float32)


ENGINE = Engine(
    package="toy_vendor",
    file_name="model.toy",
    options=ToyOptions,
    build=build,
    prove_precision=prove_precision,
    open_session=lambda path, options: ToySession(path),
    why_unavailable=lambda: "",
    typed=True,
)
""",
    "gauge": """
from deploy_kit.measure.gauges import Gauge
from deploy_kit.records.readings import Reading

GAUGE = Gauge(
    read=lambda scope: (Reading(gauge="wall_meter", what="wall", kind="power_mw", value=7000.0),),
    why_unavailable=lambda scope: "",
    settings=lambda scope: (("wall meter", "plugged in"),),
    measures_energy=True,
)
""",
    "scenario": """
from deploy_kit.measure import stopwatch
from deploy_kit.measure.scenarios import Scenario


def run(streams, load):
    return stopwatch.take_turn(streams, load.n, load.seconds), None


SCENARIO = Scenario(run=run, rounds=2, runs=3, seconds=0.0)
""",
    "link": """
from contextlib import contextmanager

from deploy_kit.devices.links import Cleaned, Link, local


@contextmanager
def connect(device):
    with local.connect(device) as connection:
        yield connection


LINK = Link(connect=connect, clean=lambda device: Cleaned(folder=device.address, n_bytes=0))
""",
}
ENTRY_POINTS = {
    "deploy_kit.engines": "toy = toy_vendor.engine:ENGINE",
    "deploy_kit.gauges": "wall_meter = toy_vendor.gauge:GAUGE",
    "deploy_kit.scenarios": "slow_drip = toy_vendor.scenario:SCENARIO",
    "deploy_kit.links": "tunnel = toy_vendor.link:LINK",
    "deploy_kit.devices": "old_tunnel = toy_vendor.link:LINK",
}


def install(site: Path) -> None:
    """Write the distribution into a folder as an installer would."""
    package, facts = site / VENDOR, site / f"{VENDOR}-{VERSION}.dist-info"
    package.mkdir(parents=True)
    facts.mkdir()
    (package / "__init__.py").write_text("")
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(text.lstrip())
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {VENDOR}\nVersion: {VERSION}\n")
    (facts / "entry_points.txt").write_text("".join(f"[{group}]\n{line}\n" for group, line in ENTRY_POINTS.items()))


def forget() -> None:
    """Let catalogues and versions be looked up anew: a program finds what was installed when it started."""
    Catalogue.names.cache_clear()  # type: ignore[attr-defined]
    Catalogue._foreign.cache_clear()  # type: ignore[attr-defined]
    environment._third_party_libraries.cache_clear()
    importlib.invalidate_caches()


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The distribution is installed, here and for workers."""
    site = tmp_path / "site"
    install(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")])))
    forget()
    yield
    monkeypatch.undo()
    forget()
    for name in [name for name in sys.modules if name.split(".")[0] == VENDOR]:
        del sys.modules[name]
