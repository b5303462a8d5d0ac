"""ncnn as an engine: float32 stays float32, files are held against one another, and one image is computed at a time."""

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
from deploy_kit.engines import ncnn
from deploy_kit.engines.ncnn import NcnnOptions
from deploy_kit.images import open_set
from deploy_kit.machine import environment
from deploy_kit.recipe import BuildEntry
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]
pytestmark = pytest.mark.skipif(not (lazy.present("ncnn") and lazy.present("pnnx")), reason=lazy.install_line("ncnn"))


def logits(line: "Line", store: Store, built: Artifact) -> np.ndarray:
    target = inference.InferenceTarget(engine="ncnn", path=store.path(built), options={})
    images = open_set(line.recipe.check.images, built.preprocess)
    return inference.infer_all(line.connection, target, images, built.preprocess).logits


def copied(line: "Line", folder: Path) -> Path:
    """Copy the built network, and return its param file."""
    source = line.store.path(line.built("fp32", "ncnn"))
    for file in (source, source.with_suffix(".bin")):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / source.name


def test_logits_are_torchs_own_to_a_millionth(line: "Line") -> None:
    assert metrics.relative_difference(line.logits(), logits(line, line.store, line.built("fp32", "ncnn"))) < 1e-6


def test_another_weight_gives_other_logits_and_another_hash(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = scaled(onnx.load(line.store.path(line.lean)), "classifier.weight", 10)
    graph = hand_made(store, model, line.lean, "other")

    other, _ = build.run(
        graph, BuildEntry(engine="ncnn", variants=("fp32",)), Context(store=store, connection=line.connection)
    )

    assert metrics.relative_difference(line.logits(), logits(line, store, other)) > 1e-3
    assert other.sha256 != line.built("fp32", "ncnn").sha256


def test_every_convolution_has_its_weights_in_float32(line: "Line") -> None:
    nodes = onnx.load(line.store.path(line.lean)).graph.node
    convolutions = sum(node.op_type == "Conv" for node in nodes)

    proof = line.built("fp32", "ncnn").proof

    assert proof is not None
    assert {op: (dtype, n) for op, dtype, n in proof.counts} == {
        "Conv": ("fp32", convolutions),
        "Gemm": ("fp32", 1),
    }


def test_half_precision_that_pnnx_would_store_is_seen(line: "Line", tmp_path: Path) -> None:
    path = copied(line, tmp_path)
    data = bytearray(path.with_suffix(".bin").read_bytes())
    rows = list(ncnn._layers(path, path))
    (first,) = [index for index, (kind, _) in enumerate(rows) if kind == "Convolution"][:1]
    assert first == 1  # only the input stands before it, so that its weights begin the file
    n = int(rows[first][1][6])
    half = np.frombuffer(bytes(data[4 : 4 + 4 * n]), np.float32).astype(np.float16).tobytes()
    data[: 4 + 4 * n] = (0x01306B47).to_bytes(4, "little") + half + bytes(-len(half) % 4)
    path.with_suffix(".bin").write_bytes(data)

    assert ("Conv", "fp16", 1) in ncnn.prove_precision(path, NcnnOptions()).counts


@pytest.mark.parametrize("part", ["model.param", "model.bin"])
@pytest.mark.parametrize("left", [0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_refused(line: "Line", tmp_path: Path, part: str, left: float) -> None:
    path = copied(line, tmp_path)
    data = (tmp_path / part).read_bytes()
    (tmp_path / part).write_bytes(data[: int(len(data) * left)])

    with pytest.raises(BuildError, match=f"^{path}: "):
        ncnn.open_session(path, NcnnOptions())


@pytest.mark.parametrize("spoil", ["missing", "longer", "another layer", "another coding"])
def test_files_that_do_not_belong_together_are_refused(line: "Line", tmp_path: Path, spoil: str) -> None:
    path = copied(line, tmp_path)
    weights = path.with_suffix(".bin")
    if spoil == "missing":
        weights.unlink()
    elif spoil == "longer":
        weights.write_bytes(weights.read_bytes() + bytes(4))
    elif spoil == "another coding":
        weights.write_bytes(b"\1\2\3\4" + weights.read_bytes()[4:])
    else:
        path.write_text(path.read_text().replace("Concat ", "Concrete "))

    with pytest.raises(BuildError, match=f"^{path}: "):
        ncnn.open_session(path, NcnnOptions())


def test_what_pnnx_does_not_convert_is_refused_before_it_is_tried(line: "Line") -> None:
    with pytest.raises(BuildError, match="NCNN001"):
        line.built("int8", "ncnn")


def test_a_float32_graph_whose_weights_are_bfloat16s_stays_in_float32(line: "Line", tmp_path: Path) -> None:
    store, model = Store(tmp_path / "store"), onnx.load(line.store.path(line.lean))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            numbers = np.array(onnx.numpy_helper.to_array(tensor))
            numbers.view(np.uint32)[...] &= 0xFFFF0000
            tensor.CopyFrom(onnx.numpy_helper.from_array(numbers, tensor.name))
    graph = hand_made(store, model, line.lean, "coarse")

    built, _ = build.run(
        graph, BuildEntry(engine="ncnn", variants=("fp32",)), Context(store=store, connection=line.connection)
    )

    assert built.proof is not None
    assert {dtype for _, dtype, _ in built.proof.counts} == {"fp32"}


@pytest.mark.parametrize(("variant", "least_db"), [("fp16", 45), ("bf16", 25)])
def test_half_precision_is_stored_and_changes_the_logits_as_it_must(
    line: "Line", variant: str, least_db: float
) -> None:
    built = line.built(variant, "ncnn")

    assert built.proof is not None
    assert {(op, dtype) for op, dtype, _ in built.proof.counts} == {("Conv", variant), ("Gemm", variant)}
    assert variant in built.proof.remark
    noise = metrics.sqnr_db(line.logits(), logits(line, line.store, built))
    assert least_db < noise < metrics.sqnr_db(line.logits(), logits(line, line.store, line.built("fp32", "ncnn"))) - 20


def test_an_open_batch_is_refused_with_the_flag(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    model = onnx.load(line.store.path(line.lean))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    graph = hand_made(store, model, line.lean, "open")

    with pytest.raises(BuildError, match="one image at a time") as caught:
        build.run(
            graph, BuildEntry(engine="ncnn", variants=("fp32",)), Context(store=store, connection=line.connection)
        )

    assert "--batch 1" in str(caught.value) + str(caught.value.hint)


def test_another_converter_is_another_build(line: "Line") -> None:
    rows = (("ncnn", "1.0"), ("pnnx", "2"), ("numpy", "2.4"))

    assert ncnn.ENGINE.versions_in(rows) == rows[:2]
    assert ncnn.ENGINE.version_in(rows[::-1]) == "1.0"
    assert {name for name, _ in line.built("fp32", "ncnn").made_by.versions} >= {"ncnn", "pnnx"}


@pytest.mark.parametrize("ending", [".param", ".bin", ".param.passport.json"])
def test_a_delivered_network_is_inspected(line: "Line", tmp_path: Path, ending: str) -> None:
    main = line.store.copy_out(line.built("fp32", "ncnn"), tmp_path / "best.param")

    found = inspection.inspect_file(main.with_name(f"best{ending}"))

    assert (found.title, found.kind) == ("fp32 · ncnn", "engine")
    assert {path.name for path in tmp_path.iterdir()} == {"best.param", "best.bin", "best.param.passport.json"}


def test_a_negative_number_of_threads_is_refused() -> None:
    with pytest.raises(RecipeError, match="threads"):
        NcnnOptions(threads=-1)


def test_a_version_too_old_is_refused_with_the_line_that_replaces_it(
    line: "Line", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "library_version", lambda name: "1.0.20240820")

    with pytest.raises(
        MissingPackageError, match=r"needs ncnn 1\.0\.20250916 or newer, found 1\.0\.20240820"
    ) as caught:
        ncnn.ENGINE.build(line.store.path(line.lean), tmp_path, NcnnOptions())

    assert caught.value.hint == "pip install 'deploykit[ncnn]' --upgrade"
    assert not list(tmp_path.iterdir())
