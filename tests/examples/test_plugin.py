"""A third party's pass and engine, installed as a package: found by name, used through the real worker process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_densenet import tiny_recipe

from deploy_kit import recipe
from deploy_kit.base import errors
from deploy_kit.engines import CATALOGUE

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
ROOT = PLUGIN.parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("plugin")]  # one installation, one run

LINE = """
import json
import deploy_kit

graph = deploy_kit.export(recipe="tiny.yaml", store="store")
simplified = deploy_kit.simplify(graph, passes=["default", "gemm_to_conv"], store="store")
engine = deploy_kit.build(simplified, "ort_basic", threads=1, store="store")
checked = deploy_kit.check(engine, store="store")
measured = deploy_kit.bench(engine, rounds=2, runs=10, warmup=0.1, allow_invalid=True, store="store")
quantized = deploy_kit.quantize(simplified, scheme="int8_ort", store="store")
try:
    refused = str(deploy_kit.build(quantized, "ort_basic", store="store"))
except deploy_kit.BuildError as error:
    refused = str(error)
row = next(row for row in simplified.passes if row.name == "gemm_to_conv")
print(json.dumps({
    "fired": row.fired, "difference": row.max_difference, "promise": row.promise,
    "label": engine.label, "counts": engine.proof.counts, "options": engine.options,
    "passed": checked.passed, "agreement": checked.agreement, "settings": dict(checked.settings),
    "samples": len(measured.measurements[0].samples_ms), "refused": refused,
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the plug-in is installed into: by pip, from its source, without an index."""
    folder = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "plugin"
    shutil.copytree(PLUGIN, source)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps",
            "--no-build-isolation", "--target", str(folder), str(source),
        ],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def found(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a program found that uses both on the tiny DenseNet."""
    folder = tmp_path_factory.mktemp("line")
    (folder / "tiny.yaml").write_text(recipe.dump_recipe(tiny_recipe(folder)))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(installed), str(ROOT)))}
    ended = subprocess.run(
        [sys.executable, "-c", LINE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    read: dict[str, Any] = json.loads(ended.stdout)
    return read


def test_the_pass_changes_the_graph_within_its_promise(found: dict[str, Any]) -> None:
    assert found["fired"] == 1
    assert 0 < found["difference"] <= found["promise"]


def test_the_engine_is_built_with_its_options_and_its_precision_proved(found: dict[str, Any]) -> None:
    assert found["label"] == "fp32 · ort_basic"
    assert found["options"] == '{"threads":1}'
    assert [row[:2] for row in found["counts"]] == [["Conv", "fp32"]]


def test_the_engine_gives_the_checkpoints_answers(found: dict[str, Any]) -> None:
    assert (found["passed"], found["agreement"]) == (True, 1.0)
    assert found["settings"]["optimizations"] == "basic"


def test_the_engine_is_measured(found: dict[str, Any]) -> None:
    assert found["samples"] == 20


def test_an_engine_that_falls_back_to_float_is_refused_as_ours_would_be(found: dict[str, Any]) -> None:
    assert "'int8' carries int8, and ort_basic computes no convolution in it" in found["refused"]


def test_without_the_package_neither_name_is_known() -> None:
    with pytest.raises(errors.UnknownNameError, match="no engine is called 'ort_basic'"):
        CATALOGUE.get("ort_basic")
