"""Inspection: what a file is, told from its bytes and its passport, and never guessed."""

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch.utils.flop_counter
from command_line import deploykit
from delivered_files import delivered
from onnx import numpy_helper
from stand_ins import scaled
from tiny_densenet import TINY_PREPROCESS, TINY_SPEC, save_tiny, tiny_model

from deploy_kit.analysis import inspection
from deploy_kit.analysis.inspection import Inspection
from deploy_kit.base.errors import CheckpointError, DeployKitError, InputError
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Origin
from deploy_kit.records.passports import PASSPORT
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line", "tiny_bundles"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("inspect") / "tiny.safetensors", tiny_model())


@pytest.fixture(scope="module")
def graph(line: "Line") -> Inspection:
    return inspection.inspect_file(line.store.path(line.lean))


def test_a_checkpoint_is_known_by_its_architecture(checkpoint: Path) -> None:
    found = inspection.inspect_file(checkpoint)

    assert (found.kind, found.title) == ("checkpoint", TINY_SPEC.title)


def test_the_parameters_are_those_that_torch_counts(checkpoint: Path) -> None:
    facts = dict(inspection.inspect_file(checkpoint).facts)

    assert facts["parameters"] == f"{sum(p.numel() for p in tiny_model().parameters()):,}"


def test_widths_of_blocks_and_transitions_are_told(checkpoint: Path) -> None:
    facts = dict(inspection.inspect_file(checkpoint).facts)

    assert facts["convolution"] == "3×3 conv, stride 1, to 8, BN, ReLU → 8 × 16×16"
    assert facts["pooling"] == "3×3 max pool, stride 2 → 8 × 8×8"
    assert facts["dense block 1"] == "[1×1 conv to 16, 3×3 conv] × 2, k = 4 → 16 × 8×8"
    assert facts["transition 1"] == "1×1 conv, 2×2 average pool → 8 × 4×4"
    assert facts["classification"] == "global average pool, 4-way linear"


def test_macs_of_a_checkpoint_are_those_that_torch_counts(checkpoint: Path) -> None:
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        tiny_model()(torch.zeros(1, 1, 16, 16))

    assert dict(inspection.inspect_file(checkpoint).facts)["MACs per run"] == f"{counter.get_total_flops() // 2:,}"


def test_maps_are_shown_for_the_input_asked_for(checkpoint: Path) -> None:
    facts = dict(inspection.inspect_file(checkpoint, sides=(32, 24)).facts)

    assert facts["input"] == "1 × 32×24"
    assert facts["dense block 2"].endswith("→ 16 × 8×6")


def test_input_with_other_axes_than_the_network_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="expected 2 sides of the input, found 3"):
        inspection.inspect_file(checkpoint, sides=(32, 32, 32))


def test_source_of_each_fact_is_told(checkpoint: Path) -> None:
    facts = dict(inspection.inspect_file(checkpoint).facts)

    assert facts["stem_pool from"] == "stated in the file"
    assert facts["concat from"] == "family 'torchvision', by its names"


def test_a_checkpoint_is_known_by_its_bytes_and_not_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    renamed = shutil.copyfile(checkpoint, tmp_path / "model.onnx")

    assert inspection.inspect_file(renamed).kind == "checkpoint"


def test_a_graph_is_known_by_its_bytes_and_not_by_its_name(line: "Line", tmp_path: Path) -> None:
    renamed = shutil.copyfile(line.store.path(line.lean), tmp_path / "model.pth")

    assert inspection.inspect_file(renamed).kind == "onnx"


def test_nodes_and_operators_are_those_of_the_file(line: "Line", graph: Inspection) -> None:
    nodes = onnx.load(line.store.path(line.lean)).graph.node

    assert dict(graph.facts)["nodes"] == str(len(nodes))
    assert dict(graph.operators) == {name: sum(n.op_type == name for n in nodes) for name in {n.op_type for n in nodes}}


def test_operators_come_most_frequent_first(graph: Inspection) -> None:
    counts = [count for _, count in graph.operators]

    assert counts == sorted(counts, reverse=True)


def test_parameters_of_a_graph_are_its_float_numbers(line: "Line", graph: Inspection) -> None:
    tensors = onnx.load(line.store.path(line.lean)).graph.initializer
    floats = [numpy_helper.to_array(tensor) for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT]

    assert dict(graph.facts)["parameters"] == f"{sum(array.size for array in floats):,}"


def test_a_typed_graph_has_the_parameters_of_the_float_one_without_scales(line: "Line", graph: Inspection) -> None:
    half, int8 = (dict(inspection.inspect_file(line.store.path(line.graph(name))).facts) for name in ("fp16", "int8"))

    floats = int(dict(graph.facts)["parameters"].replace(",", ""))
    assert half["parameters"] == f"{floats:,}"
    # ONNX Runtime writes a bias that convolutions share once for each of them.
    assert floats <= int(int8["parameters"].replace(",", "")) < 1.01 * floats


def test_weights_are_counted_in_bytes(line: "Line") -> None:
    path = line.store.path(line.graph("int8"))
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]

    facts = dict(inspection.inspect_file(path).facts)

    assert facts["weights"] == f"{sum(array.nbytes for array in arrays):,} bytes"


def test_the_preprocessing_is_told_in_words(graph: Inspection) -> None:
    words = "images of 16×16 px, gray; (pixel / 255 - mean) / std with mean 0.5 and std 0.25"

    assert dict(graph.facts)["from an image"] == words
    resized = dataclasses.replace(TINY_PREPROCESS, resize=20).words
    assert resized.startswith("shorter side scaled to 20 px (bilinear, antialiased), center crop of 16×16 px, gray; ")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_copy_is_known_wherever_it_lies_and_whatever_it_is_called(line: "Line", tmp_path: Path, engine: str) -> None:
    built = line.built("int8", engine)
    origin = Origin(checkpoint="best.pth", checkpoint_sha256="c" * 64, accuracy="accepted", images="val", n_images=24)
    for other in ("onnxruntime", "openvino"):  # both beside each other, as they are delivered
        one = line.built("int8", other)
        line.store.copy_out(one, tmp_path / f"best-int8{Path(one.path).suffix}", origin)
    main = tmp_path / f"best-int8{Path(built.path).suffix}"

    found = inspection.inspect_file(main)

    assert found.passport == dataclasses.replace(built, origin=origin)
    assert dict(found.facts)["from an image"].startswith("images of 16×16 px")


def test_the_passport_of_an_earlier_version_beside_a_copy_of_two_files_is_read(line: "Line", tmp_path: Path) -> None:
    built = line.built("int8", "openvino")
    main = line.store.copy_out(built, tmp_path / "best.xml")
    main.with_name("best.xml.passport.json").rename(tmp_path / "best.passport.json")

    assert inspection.inspect_file(main).passport == built


def test_a_passport_says_what_was_judged_also_where_an_earlier_version_called_it_the_verdict(
    line: "Line", tmp_path: Path
) -> None:
    main = delivered(line, "int8", "onnxruntime", tmp_path)
    passport = main.with_name(main.name + PASSPORT)
    now = json.loads(passport.read_text())
    earlier = {**now["origin"], "verdict": now["origin"]["accuracy"]}
    del earlier["accuracy"], now["record_sha256"]
    read = [re.findall(r"accuracy +accepted\n", deploykit("inspect", main).out)]
    passport.write_text(json.dumps({**now, "origin": earlier}))

    read += [re.findall(r"accuracy +accepted\n", deploykit("inspect", main).out)]

    assert [len(found) for found in read] == [1, 1]


@pytest.mark.parametrize("ending", [".bin", ".xml.passport.json"])
def test_what_lies_beside_an_engine_describes_the_engine(line: "Line", tmp_path: Path, ending: str) -> None:
    main = line.store.copy_out(line.built("int8", "openvino"), tmp_path / "best.xml")

    assert inspection.inspect_file(main.with_suffix(ending)) == inspection.inspect_file(main)


def test_a_copy_whose_weights_were_changed_has_no_passport(line: "Line", tmp_path: Path) -> None:
    main = line.store.copy_out(line.built("int8", "openvino"), tmp_path / "best.xml")
    weights = main.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")

    with pytest.raises(InputError, match=r"not what best.xml.passport.json describes: it was changed"):
        inspection.inspect_file(main)


def test_a_passport_that_was_edited_is_named_and_not_the_file(line: "Line", tmp_path: Path) -> None:
    graph = line.store.copy_out(line.lean, tmp_path / "best.onnx")
    engine = line.store.copy_out(line.built("int8", "openvino"), tmp_path / "best.xml")
    for file in (graph, engine):
        passport = file.with_name(f"{file.name}.passport.json")
        passport.write_text(passport.read_text().replace('"size_bytes":', '"size_bytes":1'))

    said = "its passport, best.onnx.passport.json, was changed since it was written"
    assert dict(inspection.inspect_file(graph).facts)["remark"] == said
    with pytest.raises(InputError, match=r"its passport, best.xml.passport.json, was changed since it was written"):
        inspection.inspect_file(engine)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_changed_bundle_claims_nothing(packed: Callable[..., Path], tmp_path: Path, engine: str) -> None:
    bundle = Path(shutil.copytree(packed("int8", engine), tmp_path / "bundle"))
    whole, main = deploykit("inspect", bundle), next(bundle.glob("model.*"))
    main.write_bytes(packed("fp32", engine).joinpath(main.name).read_bytes())

    changed = deploykit("inspect", bundle)

    assert (whole.code, changed.code) == (0, 0), changed.err
    assert re.search(r"^accuracy +accepted|^accuracy +undecided", whole.out, re.MULTILINE)
    assert re.search(rf"^remark +{main.name}: ", changed.out, re.MULTILINE)
    assert not re.search(r"^(accuracy|checked on|made by) ", changed.out, re.MULTILINE)


def test_changed_graph_beside_its_passport_is_called_changed(line: "Line", tmp_path: Path) -> None:
    copied = line.store.copy_out(line.lean, tmp_path / "best.onnx")
    assert "remark" not in dict(inspection.inspect_file(copied).facts)
    onnx.save(scaled(onnx.load(copied), "classifier.weight", 2), copied)

    found = inspection.inspect_file(copied)

    assert found.passport is None
    assert "it is not what best.onnx.passport.json describes" in dict(found.facts)["remark"]


def test_hash_of_each_file_is_what_sha256sum_prints(line: "Line", tmp_path: Path) -> None:
    main = line.store.copy_out(line.built("int8", "openvino"), tmp_path / "best.xml")

    facts = dict(inspection.inspect_file(main).facts)

    for file in (main, main.with_suffix(".bin")):
        assert facts[f"sha256 of {file.name}"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_macs_are_those_that_torch_counts(graph: Inspection) -> None:
    counter = torch.utils.flop_counter.FlopCounterMode(display=False)
    with counter:
        tiny_model()(torch.zeros(1, 1, 16, 16))

    assert dict(graph.facts)["MACs per run"] == f"{counter.get_total_flops() // 2:,}"


@pytest.mark.parametrize("name", ["fp32", "fp16", "int8"])
def test_the_precision_is_the_one_the_graph_carries(line: "Line", name: str) -> None:
    found = inspection.inspect_file(line.store.path(line.graph(name)))

    assert (dict(found.facts)["precision"], found.title) == (name, f"ONNX graph, {name}")


def test_inputs_and_outputs_are_told(graph: Inspection) -> None:
    assert [(spec.name, spec.dtype, spec.shape) for spec in graph.inputs] == [("input", "float", (1, 1, 16, 16))]
    assert [(spec.name, spec.shape) for spec in graph.outputs] == [("logits", (1, 4))]


def test_the_embedded_preprocessing_is_told(line: "Line", graph: Inspection) -> None:
    assert json.loads(dict(graph.facts)["preprocess"]) == codec.to_json(line.lean.preprocess)


def test_a_graph_without_preprocessing_says_so(line: "Line", tmp_path: Path) -> None:
    model = onnx.load(line.store.path(line.lean))
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")

    assert dict(inspection.inspect_file(tmp_path / "bare.onnx").facts)["preprocess"] == "not embedded"


@pytest.mark.parametrize("stage", ["exported", "simplified", "quantized", "built"])
def test_a_file_of_the_store_has_its_passport(line: "Line", stage: str) -> None:
    artifact = {
        "exported": line.exported.onnx,
        "simplified": line.lean,
        "quantized": line.graph("int8"),
        "built": line.built("int8", "openvino"),
    }[stage]

    assert inspection.inspect_file(line.store.path(artifact)).passport == artifact


def test_a_file_from_elsewhere_has_no_passport(line: "Line", tmp_path: Path) -> None:
    copied = shutil.copyfile(line.store.path(line.lean), tmp_path / "model.onnx")

    assert inspection.inspect_file(copied).passport is None


def test_a_file_is_not_given_the_passport_of_its_neighbour(line: "Line", kept: Store) -> None:
    folder = (kept.root / line.lean.path).parent
    stranger = shutil.copyfile(line.store.path(line.graph("int8")), folder / "stranger.onnx")

    assert inspection.inspect_file(stranger).passport is None


def test_a_file_changed_since_it_was_made_is_not_given_its_passport(line: "Line", kept: Store) -> None:
    path = kept.root / line.lean.path
    onnx.save(scaled(onnx.load(path), "classifier.weight", 2), path)

    assert inspection.inspect_file(path).passport is None


def test_an_engine_tells_what_it_computes_in(line: "Line") -> None:
    engine = line.built("int8", "openvino")

    facts = dict(inspection.inspect_file(line.store.path(engine)).facts)

    assert engine.proof is not None
    assert facts["Conv in int8"] == str(
        next(n for op, dtype, n in engine.proof.counts if (op, dtype) == ("Conv", "int8"))
    )
    assert facts["proved by"] == "OpenVINO's runtime model"


def test_an_engine_without_a_passport_says_where_to_find_it(tmp_path: Path) -> None:
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")

    with pytest.raises(InputError, match="an engine without a passport") as caught:
        inspection.inspect_file(plan)

    assert "record.json" in caught.value.hint


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        inspection.inspect_file(tmp_path / "nothing.pth")


def test_a_folder_is_not_called_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        inspection.inspect_file(tmp_path)

    assert "no such file" not in str(caught.value)


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.onnx"
    path.touch()

    with pytest.raises(CheckpointError, match="the file is empty"):
        inspection.inspect_file(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_graph_that_is_cut_off_is_refused(line: "Line", tmp_path: Path, share: float) -> None:
    data = line.store.path(line.lean).read_bytes()
    path = tmp_path / "cut.onnx"
    path.write_bytes(data[: int(share * len(data))])

    with pytest.raises(InputError, match=str(path)):
        inspection.inspect_file(path)


@pytest.mark.parametrize(
    "data", [b"\x00", b"hello", b"\x08\x0a", b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", bytes(range(256))]
)
def test_whatever_else_it_is_the_file_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "what"
    path.write_bytes(data)

    with pytest.raises(DeployKitError, match=str(path)):
        inspection.inspect_file(path)


@pytest.mark.parametrize("name", ["checkpoint", "graph", "engine"])
def test_an_inspection_comes_back_from_json_as_it_was(line: "Line", checkpoint: Path, name: str) -> None:
    path = {
        "checkpoint": checkpoint,
        "graph": line.store.path(line.lean),
        "engine": line.store.path(line.built("int8", "openvino")),
    }[name]
    found = inspection.inspect_file(path)

    assert codec.from_json(Inspection, json.loads(json.dumps(codec.to_json(found)))) == found
