"""What every engine of the catalogue promises; those that can run here are run, in a real worker."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from stand_ins import hand_made, scaled

from deploy_kit.accuracy import metrics
from deploy_kit.base import lazy
from deploy_kit.base.errors import DeployKitError, MissingPackageError, RecipeError
from deploy_kit.base.lazy import install_line
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.engines import CATALOGUE
from deploy_kit.images import open_set
from deploy_kit.recipe import BuildEntry
from deploy_kit.records import codec
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]

CAPABLE = {"tensorrt_rtx": {"compute_capabilities": ["8.9"]}}  # what a machine without a GPU must be told
RUN_HERE = ("onnxruntime", "openvino", "reference")

every_engine = pytest.mark.parametrize("name", CATALOGUE.names())
running_engine = pytest.mark.parametrize("name", RUN_HERE)


def tensors(line: "Line", name: str, engine: str) -> np.ndarray:
    """Run the check images through an engine in a worker."""
    built = line.built(name, engine)
    target = inference.InferenceTarget(engine=engine, path=line.store.path(built), options={})
    return inference.infer_all(
        line.connection, target, open_set(line.recipe.check.images, built.preprocess), built.preprocess
    ).logits


@every_engine
def test_options_all_have_defaults(name: str) -> None:
    options = CATALOGUE.get(name).options

    made = options()

    assert codec.from_json(options, codec.to_json(made)) == made


@every_engine
def test_options_are_frozen(name: str) -> None:
    options = CATALOGUE.get(name).options

    assert dataclasses.is_dataclass(options)
    assert options.__dataclass_params__.frozen


@every_engine
def test_an_unknown_option_is_refused_with_its_name(name: str) -> None:
    with pytest.raises(RecipeError, match="unknown key 'speeed'"):
        codec.from_json(CATALOGUE.get(name).options, {"speeed": 9}, f"engine '{name}'")


@every_engine
def test_file_name_is_a_plain_name(name: str) -> None:
    file_name = CATALOGUE.get(name).file_name

    assert file_name
    assert Path(file_name).name == file_name


@every_engine
def test_a_missing_package_gives_the_one_message(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = CATALOGUE.get(name)
    monkeypatch.setattr(lazy, "present", lambda package: False)

    with pytest.raises(MissingPackageError) as caught:
        engine.build(tmp_path / "model.onnx", tmp_path, engine.options())

    wanted = f"engine '{name}' needs the package '{engine.package}', which is not installed here"
    assert (str(caught.value), caught.value.hint) == (wanted, install_line(engine.package))


@every_engine
def test_why_it_is_unavailable_is_words(name: str) -> None:
    assert isinstance(CATALOGUE.get(name).why_unavailable(), str)


def test_no_entry_loads_its_library() -> None:
    probe = (
        "import sys; from deploy_kit import engines;"
        "found = [engines.CATALOGUE.get(name).package for name in engines.CATALOGUE.names()];"
        "print([package for package in found if package in sys.modules])"
    )

    said = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout

    assert said.strip() == "[]"


@every_engine
def test_a_graph_that_is_not_there_is_named_and_nothing_is_written(name: str, line: "Line", tmp_path: Path) -> None:
    engine = CATALOGUE.get(name)
    if not lazy.present(engine.package):
        pytest.skip(install_line(engine.package))
    folder = tmp_path / "out"
    folder.mkdir()

    with line.connection.worker() as worker, pytest.raises(DeployKitError, match=r"none\.onnx"):
        paths = {"onnx": str(tmp_path / "none.onnx"), "folder": str(folder)}
        worker.ask("build", "none.onnx", engine=name, options=CAPABLE.get(name, {}), **paths)

    assert list(folder.iterdir()) == []


@every_engine
def test_a_build_tells_its_proof_and_leaves_its_file(name: str, line: "Line") -> None:
    engine = CATALOGUE.get(name)
    if not lazy.present(engine.package) or (engine.why_unavailable() and not engine.cross_builds):
        pytest.skip(install_line(engine.package))

    built = line.built("fp32", name, **CAPABLE.get(name, {}))

    assert built.proof is not None
    assert built.proof.source
    assert built.proof.share("fp32", of="Conv") == 1
    assert Path(built.path).name == engine.file_name


@pytest.mark.slow
@running_engine
def test_float_logits_agree_with_torch(name: str, line: "Line") -> None:
    found = tensors(line, "fp32", name)

    assert metrics.relative_difference(line.logits(), found) < 1e-5


@pytest.mark.slow
@running_engine
def test_int8_logits_are_near_those_of_torch(name: str, line: "Line") -> None:
    found = tensors(line, "int8", name)

    assert metrics.sqnr_db(line.logits(), found) > 25


@pytest.mark.slow
@running_engine
def test_another_weight_gives_other_logits(name: str, line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = scaled(onnx.load(line.store.path(line.lean)), "classifier.weight", 10)
    entry = BuildEntry(engine=name, variants=("fp32",))

    other, _ = build.run(
        hand_made(store, model, line.lean, "other"), entry, Context(store=store, connection=line.connection)
    )

    target = inference.InferenceTarget(engine=name, path=store.path(other), options={})
    image_set = open_set(line.recipe.check.images, other.preprocess)
    logits = inference.infer_all(line.connection, target, image_set, other.preprocess).logits
    assert metrics.relative_difference(line.logits(), logits) > 1e-3


@pytest.mark.slow
@running_engine
def test_engines_of_other_weights_are_told_apart_by_their_hash(name: str, line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = scaled(onnx.load(line.store.path(line.lean)), "classifier.weight", 1.001)
    entry = BuildEntry(engine=name, variants=("fp32",))

    other, _ = build.run(
        hand_made(store, model, line.lean, "other"), entry, Context(store=store, connection=line.connection)
    )

    assert other.sha256 != line.built("fp32", name).sha256


@running_engine
def test_proof_counts_every_convolution_of_the_float_graph(name: str, line: "Line") -> None:
    nodes = onnx.load(line.store.path(line.lean)).graph.node
    convolutions, norms = (sum(node.op_type == kind for node in nodes) for kind in ("Conv", "BatchNormalization"))

    proof = line.built("fp32", name).proof

    assert proof is not None
    [(_, dtype, found)] = [row for row in proof.counts if row[0] == "Conv"]
    assert dtype == "fp32"
    # ONNX Runtime computes a norm as a convolution where the processor's vectors divide its channels.
    assert convolutions <= found <= convolutions + norms


@running_engine
def test_proof_shows_every_convolution_in_int8(name: str, line: "Line") -> None:
    nodes = onnx.load(line.store.path(line.graph("int8"))).graph.node
    convolutions = sum(node.op_type == "Conv" for node in nodes)

    proof = line.built("int8", name).proof

    assert proof is not None
    assert {row for row in proof.counts if row[0] == "Conv"} == {("Conv", "int8", convolutions)}


@running_engine
def test_opening_tells_the_static_batch_and_the_settings_in_words(name: str, line: "Line") -> None:
    built = line.built("fp32", name)

    with line.connection.worker() as worker:
        opened = worker.ask("open", name, engine=name, path=str(line.store.path(built)), options={})

    assert opened["batch"] == line.lean.inputs[0].shape[0]
    assert opened["settings"]
    assert all(isinstance(value, str) and value for value in opened["settings"].values())


@pytest.mark.slow
@running_engine
def test_an_open_batch_is_told_as_zero(name: str, line: "Line", tmp_path: Path) -> None:
    model = onnx.load(line.store.path(line.lean))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    onnx.save(model, tmp_path / "open.onnx")

    with line.connection.worker() as worker:
        paths = {"onnx": str(tmp_path / "open.onnx"), "folder": str(tmp_path)}
        worker.ask("build", name, engine=name, options={}, **paths)
        file = str(tmp_path / CATALOGUE.get(name).file_name)
        opened = worker.ask("open", name, engine=name, path=file, options={})

    assert opened["batch"] == 0


@every_engine
def test_a_file_that_is_cut_off_is_named(name: str, line: "Line", tmp_path: Path) -> None:
    engine, broken = CATALOGUE.get(name), tmp_path / "broken.onnx"
    if not lazy.present(engine.package):
        pytest.skip(install_line(engine.package))
    data = line.store.path(line.lean).read_bytes()
    broken.write_bytes(data[: len(data) // 2])

    with line.connection.worker() as worker, pytest.raises(DeployKitError) as caught:
        paths = {"onnx": str(broken), "folder": str(tmp_path)}
        worker.ask("build", str(broken), engine=name, options=CAPABLE.get(name, {}), **paths)

    assert str(caught.value).startswith(f"{broken}: ")


@running_engine
def test_a_built_file_that_is_cut_off_is_named(name: str, line: "Line", tmp_path: Path) -> None:
    source = line.store.path(line.built("fp32", name))
    for file in source.parent.glob(f"{source.stem}.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    broken = tmp_path / source.name

    with line.connection.worker() as worker, pytest.raises(DeployKitError) as caught:
        worker.ask("open", str(broken), engine=name, path=str(broken), options={})

    assert str(caught.value).startswith(f"{broken}: ")
