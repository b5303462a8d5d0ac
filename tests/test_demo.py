"""The demo end to end, on its real checkpoint and all its real images: what the README promises of its own files.

Stock tools' files and plans that no GPU here can run stand in the table as well; other tests make those.
"""

import pytest

from deploy_kit import pipeline, recipe
from deploy_kit.devices import links
from deploy_kit.recipe import BuildEntry
from deploy_kit.records.results import Report
from deploy_kit.store import Store


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    demo = recipe.load_recipe("demo")
    short = {"rounds": 3, "runs": 20, "warmup_s": 0.5}  # latency is measured by `make bench`, not judged here
    quantize = demo.quantize.model_copy(
        update={"variants": tuple(v for v in demo.quantize.variants if v.name == "int8")}
    )
    engines = tuple(BuildEntry(engine=name, variants=("fp32", "int8")) for name in ("onnxruntime", "openvino"))
    build = demo.build.model_copy(update={"engines": engines})
    bench = demo.bench.model_copy(update=short)
    demo = demo.model_copy(update={"quantize": quantize, "build": build, "bench": bench})
    return pipeline.deploy(demo, links.LOCAL, Store(tmp_path_factory.mktemp("demo") / "store"))


@pytest.mark.slow
def test_the_checkpoint_has_the_accuracy_of_its_card(report: Report) -> None:
    assert report.answers.n == 10_000
    assert report.answers.top1 == pytest.approx(0.9356, abs=2e-4)


@pytest.mark.slow
def test_every_engine_that_runs_here_keeps_the_limits(report: Report) -> None:
    assert report.passed
    assert not [row.label for row in report.rows if row.failed]


@pytest.mark.slow
def test_int8_loses_at_most_three_tenths_of_a_point(report: Report) -> None:
    drops = {
        row.label: row.parity.drop_pp
        for row in report.rows
        if row.artifact is not None and row.artifact.precision == "int8" and hasattr(row.parity, "drop_pp")
    }

    assert len(drops) == 2
    assert max(drops.values()) <= 0.3


@pytest.mark.slow
def test_batchnorms_fold_where_a_convolution_is_right_before_them(report: Report) -> None:
    folded = next(row for row in report.passes if row.name == "fold_batchnorm")

    # 1 after the stem and 1 in each of the 18 layers; 18 that open a layer or transition, 2 + 1 behind a pool stay.
    assert (folded.fired, sum(n for _, n in folded.refused)) == (19, 21)
