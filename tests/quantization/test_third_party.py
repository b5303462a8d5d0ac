"""A pass, a lint rule and a scheme of a distribution of its own are used like ours, and no file of ours knows them."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_graphs

from deploy_kit.records import codec
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

PASS = """
from deploy_kit.graph.passes import Outcome, Pass


def apply(model):
    model.metadata_props["acme.pass"] = "applied"
    return Outcome(fired=1)


PASS = Pass(apply=apply, promise=0.0, order=55)
"""

RULE = """
from deploy_kit.graph.lint import EVERYWHERE, LintFault, Rule, name_of


def check(model, target):
    for node in model.graph:
        if node.op_type == "Gemm":
            yield LintFault(node=name_of(node), text="a Gemm, which Acme's chip runs slowly")


def needs(model):
    return (("acme-runtime>=2", "a Gemm"),)


RULE = Rule(
    targets=EVERYWHERE, level="warning", title="a Gemm", cure="write it as a convolution", source="measured",
    check=check, needs=needs,
)
"""

SCHEME = """
from dataclasses import dataclass

from deploy_kit.graph import onnx_file
from deploy_kit.quantization import schemes
from deploy_kit.quantization.schemes import Scheme


@dataclass(frozen=True, kw_only=True)
class AcmeOptions:
    label: str = "acme"


def apply(source, target, options, calibration):
    half = schemes.CATALOGUE.get("fp16")
    half.apply(source, target, half.options(), calibration)
    model = onnx_file.load(target)
    model.metadata_props["acme.scheme"] = options.label
    onnx_file.save(model, target)


SCHEME = Scheme(
    package="numpy", precision="fp16", options=AcmeOptions, calibrates=False, apply=apply, libraries=("acme-kit",)
)
"""

ENTRY_POINTS = """
[deploy_kit.passes]
acme_rewrite = acme_kit.rewrite:PASS
[deploy_kit.lint]
acme001 = acme_kit.rule:RULE
[deploy_kit.schemes]
acme_half = acme_kit.scheme:SCHEME
"""

PROGRAM = """
import json, sys
from pathlib import Path
from deploy_kit.analysis import doctor
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.graph import lint, onnx_file, passes
from deploy_kit.recipe import SimplifyTable, Variant
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import quantize, simplify
from deploy_kit.store import Store

store, exported = Store(Path(sys.argv[1])), codec.from_json(Artifact, json.loads(sys.argv[2]))
with links.connect_device(links.LOCAL) as connection:
    context = Context(store=store, connection=connection)
    made, _ = simplify.run(exported, SimplifyTable(passes="default"), context)
    variant = Variant(name="half", scheme="acme_half", options={"label": "tiny"})
    typed, _ = quantize.run(made.onnx, variant, context, calibration=None)
graph, typed_graph = onnx_file.load(store.path(made.onnx)), onnx_file.load(store.path(typed))
print(json.dumps({
    "passes": [row.name for row in made.passes],
    "graph": dict(graph.metadata_props),
    "typed": dict(typed_graph.metadata_props),
    "precision": onnx_file.precision(typed_graph),
    "made_by": dict(typed.made_by.rows),
    "findings": {
        engine: [str(found) for found in lint.lint_file(store.path(typed), lint.parse_target(engine, [engine]))]
        for engine in ("reference", "acme_engine")
    },
    "needs": lint.needs(typed_graph),
    "table": lint.rules_table(),
    "package": doctor.scheme_package("acme_half"),
}))
"""


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Install the distribution into a folder of its own, and take the tiny DenseNet through all three."""
    site, store = tmp_path_factory.mktemp("site"), Store(tmp_path_factory.mktemp("store"))
    files = {
        "acme_kit/__init__.py": "",
        "acme_kit/rewrite.py": PASS,
        "acme_kit/rule.py": RULE,
        "acme_kit/scheme.py": SCHEME,
        "acme_kit-1.2.dist-info/METADATA": "Metadata-Version: 2.1\nName: acme-kit\nVersion: 1.2\n",
        "acme_kit-1.2.dist-info/entry_points.txt": ENTRY_POINTS,
    }
    for name, text in files.items():
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).write_text(text)
    result, data = tiny_graphs.exported()
    exported = json.dumps(codec.to_json(tiny_graphs.place(store, result.onnx, data)))
    asked = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(store.root), exported],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(site)])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert asked.returncode == 0, asked.stderr
    return json.loads(asked.stdout)


def test_a_pass_with_a_place_is_one_of_the_default_passes(used: dict[str, Any]) -> None:
    names = used["passes"]

    assert names.index("fold_batchnorm") < names.index("acme_rewrite") < names.index("fold_batchnorm_into_next")
    assert used["graph"]["acme.pass"] == "applied"


def test_a_rule_for_every_engine_finds_its_faults_on_any_target(used: dict[str, Any]) -> None:
    for findings in used["findings"].values():
        (fault,) = [found for found in findings if found.startswith("ACME001")]
        assert fault.endswith("a Gemm, which Acme's chip runs slowly")


def test_a_rule_stands_in_the_table_of_all_rules(used: dict[str, Any]) -> None:
    assert "| `ACME001` | warning | all | a Gemm | write it as a convolution | measured |" in used["table"]


def test_what_a_rule_says_that_a_graph_needs_is_in_the_passport(used: dict[str, Any]) -> None:
    assert ["acme-runtime>=2", "a Gemm"] in used["needs"]
    assert used["made_by"]["needs"] == "acme-runtime>=2 (a Gemm)"


def test_a_scheme_writes_the_graph_of_a_variant(used: dict[str, Any]) -> None:
    assert (used["precision"], used["typed"]["acme.scheme"]) == ("fp16", "tiny")
    assert (used["made_by"]["scheme"], used["made_by"]["options"]) == ("acme_half", '{"label":"tiny"}')


def test_a_scheme_is_dated_by_its_own_distribution(used: dict[str, Any]) -> None:
    assert used["made_by"]["acme-kit"] == "1.2"


def test_the_doctor_knows_the_package_of_a_scheme(used: dict[str, Any]) -> None:
    assert used["package"] == "numpy"
