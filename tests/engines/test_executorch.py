"""ExecuTorch as an engine: one program of XNNPACK's, whole before native code reads it, with the graph's own grids."""

import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from stand_ins import hand_made, scaled

from deploy_kit.accuracy import metrics
from deploy_kit.analysis import inspection
from deploy_kit.base import lazy
from deploy_kit.base.errors import BuildError, MissingPackageError, RecipeError
from deploy_kit.context import Context
from deploy_kit.devices import inference
from deploy_kit.engines import _pte, executorch
from deploy_kit.engines.executorch import ExecuTorchOptions
from deploy_kit.images import open_set
from deploy_kit.recipe import BuildEntry
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = [
    pytest.mark.skipif(not lazy.present("executorch"), reason=lazy.install_line("executorch")),
    pytest.mark.slow,
]


def logits(line: "Line", store: Store, built: Artifact) -> np.ndarray:
    target = inference.InferenceTarget(engine=str(built.engine), path=store.path(built), options={})
    images = open_set(line.recipe.check.images, built.preprocess)
    return inference.infer_all(line.connection, target, images, built.preprocess).logits


def copied(line: "Line", folder: Path) -> Path:
    source = line.store.path(line.built("fp32", "executorch"))
    (folder / source.name).write_bytes(source.read_bytes())
    return folder / source.name


def refused(line: "Line", path: Path) -> str:
    """Open a program in a worker, and return its error."""
    with line.connection.worker() as worker, pytest.raises(BuildError) as caught:
        worker.ask("open", str(path), engine="executorch", path=str(path), options={})
    return str(caught.value)


def test_logits_are_torchs_own_to_a_millionth(line: "Line") -> None:
    assert metrics.relative_difference(line.logits(), logits(line, line.store, line.built("fp32", "executorch"))) < 2e-6


def test_every_convolution_is_in_the_one_delegate(line: "Line") -> None:
    nodes = onnx.load(line.store.path(line.lean)).graph.node
    convolutions = sum(node.op_type == "Conv" for node in nodes)

    proof = line.built("fp32", "executorch").proof

    assert proof is not None
    assert {row for row in proof.counts if row[0] == "Conv"} == {("Conv", "fp32", convolutions)}
    assert set(proof.places) == {"XNNPACK"}
    assert proof.remark.startswith("1 delegates of XNNPACK, 0 kernels")


def test_int8_logits_are_those_of_onnxruntime_on_the_same_graph(line: "Line") -> None:
    found = logits(line, line.store, line.built("int8", "executorch"))

    wanted = logits(line, line.store, line.built("int8", "onnxruntime"))

    assert metrics.sqnr_db(line.logits(), wanted) > 25
    assert metrics.sqnr_db(wanted, found) > 40  # what INT8 itself loses lies far above


def test_every_convolution_computes_on_the_graphs_integers(line: "Line") -> None:
    nodes = onnx.load(line.store.path(line.graph("int8"))).graph.node
    convolutions = sum(node.op_type == "Conv" for node in nodes)

    proof = line.built("int8", "executorch").proof

    assert proof is not None
    assert {row for row in proof.counts if row[0] == "Conv"} == {("Conv", "int8", convolutions)}


def test_another_weight_gives_other_logits_and_another_hash(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = scaled(onnx.load(line.store.path(line.lean)), "classifier.weight", 10)
    graph = hand_made(store, model, line.lean, "other")

    other, _ = build.run(
        graph, BuildEntry(engine="executorch", variants=("fp32",)), Context(store=store, connection=line.connection)
    )

    assert metrics.relative_difference(line.logits(), logits(line, store, other)) > 1e-3
    assert other.sha256 != line.built("fp32", "executorch").sha256


@pytest.mark.parametrize("left", [0, 4, 0.1, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(line: "Line", tmp_path: Path, left: float) -> None:
    path = copied(line, tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(left if left > 1 else len(data) * left)])

    with pytest.raises(BuildError, match=f"^{path}: no whole program of ExecuTorch: "):
        executorch.open_session(path, ExecuTorchOptions())


def test_no_byte_of_its_structure_can_lead_outside_of_the_file(line: "Line", tmp_path: Path) -> None:
    path = copied(line, tmp_path)
    data, noise = path.read_bytes(), np.random.default_rng(0)
    structure = struct.unpack_from("<Q", data, 16)[0]

    for place in noise.integers(0, structure, 400):
        broken = bytearray(data)
        broken[place] ^= int(noise.integers(1, 256))
        path.write_bytes(broken)
        try:
            _pte.read(path)
        except BuildError as error:
            assert str(error).startswith(f"{path}: no whole program of ExecuTorch: ")


def test_a_foreign_file_is_refused(line: "Line", tmp_path: Path) -> None:
    path = tmp_path / "foreign.pte"
    path.write_bytes(line.store.path(line.lean).read_bytes())

    assert "expected 'ET12'" in refused(line, path)


def test_a_program_for_another_backend_is_refused_with_its_name(line: "Line", tmp_path: Path) -> None:
    path = copied(line, tmp_path)
    path.write_bytes(path.read_bytes().replace(b"XnnpackBackend", b"QnnpackBackend"))

    assert "QnnpackBackend" in refused(line, path)


def test_a_runtime_that_lacks_a_kernel_says_so(line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copied(line, tmp_path)
    data = path.read_bytes()
    monkeypatch.setattr(_pte, "read", lambda path: (_pte.PteProgram(**facts), data[:64] + bytes(len(data) - 64)))
    facts = vars(_pte._parse(data))

    with pytest.raises(BuildError, match=r"ExecuTorch 1\S+ cannot load it"):
        executorch.open_session(path, ExecuTorchOptions())


def test_a_version_that_is_too_old_is_refused_with_the_line_that_mends_it(
    line: "Line", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(line, tmp_path)
    monkeypatch.setattr(executorch.environment, "library_version", lambda name: "1.4.2")

    with pytest.raises(MissingPackageError, match=r"needs executorch 1\.5 or newer, found 1\.4\.2") as caught:
        executorch.open_session(path, ExecuTorchOptions())

    assert caught.value.hint == f"{lazy.install_line('executorch')} --upgrade"


def test_an_open_batch_is_refused_with_the_flag(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = onnx.load(line.store.path(line.lean))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    graph = hand_made(store, model, line.lean, "open")

    with pytest.raises(BuildError, match="open batch") as caught:
        build.run(
            graph, BuildEntry(engine="executorch", variants=("fp32",)), Context(store=store, connection=line.connection)
        )

    assert "--batch 1" in str(caught.value.hint)


def test_half_precision_is_refused_before_it_is_lowered(line: "Line") -> None:
    with pytest.raises(BuildError, match="ET001: the graph carries half precision"):
        line.built("fp16", "executorch")


def test_its_version_is_in_the_passport(line: "Line") -> None:
    assert "executorch" in {name for name, _ in line.built("fp32", "executorch").made_by.versions}


def test_a_delivered_program_is_inspected(line: "Line", tmp_path: Path) -> None:
    main = line.store.copy_out(line.built("fp32", "executorch"), tmp_path / "best.pte")

    found = inspection.inspect_file(main)

    assert (found.title, found.kind) == ("fp32 · executorch", "engine")


def test_a_device_is_told_to_take_a_program_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "deploy_kit.graph" else True)
    monkeypatch.setattr(executorch, "need", lambda *_, **__: None)

    with pytest.raises(BuildError, match="on the host, not on a device") as caught:
        executorch.build(tmp_path / "model.onnx", tmp_path, ExecuTorchOptions())

    assert "deploykit build --engine executorch" in caught.value.hint


def test_a_negative_number_of_threads_is_refused() -> None:
    with pytest.raises(RecipeError, match="threads"):
        ExecuTorchOptions(threads=-1)
