"""Building: what is kept, what is refused, and that an engine which fell back to another precision is."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnxruntime import quantization as ort
from stand_ins import Calibration, PretendLink, hand_made

from deploy_kit import engines
from deploy_kit.base.errors import BuildError, DeviceError, RecipeError, StoreError, UnknownNameError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.machine import environment
from deploy_kit.recipe import BuildEntry
from deploy_kit.records.artifacts import Artifact, Device, Precision, Proof
from deploy_kit.stages import build
from deploy_kit.store import Store

if TYPE_CHECKING:
    from tiny_line import Line

pytest_plugins = ["tiny_line"]


def typed(line: "Line", precision: Precision, name: str = "int8") -> Artifact:
    """Give a graph that says it carries `precision`."""
    return Artifact(**vars(line.lean) | {"name": name, "precision": precision})


def proof(*counts: tuple[str, str, int]) -> Proof:
    return Proof(source="a test", counts=counts)


def proving(folder: Path, *counts: tuple[str, str, int]) -> PretendLink:
    """Give a link whose worker writes an engine file and proves these counts."""

    def answer(arguments: dict[str, Any]) -> dict[str, Any]:
        (Path(arguments["folder"]) / engines.CATALOGUE.get(arguments["engine"]).file_name).write_bytes(b"an engine")
        return {"proof": {"source": "a test", "counts": counts, "remark": ""}, "build_s": 1.5, "built": None}

    return PretendLink(folder, {"build": answer})


def entry(engine: str = "onnxruntime", **options: Any) -> BuildEntry:
    return BuildEntry(engine=engine, variants=("int8",), options=options)


def test_int8_without_one_int8_operation_is_refused(line: "Line") -> None:
    with pytest.raises(BuildError, match="carries int8, and openvino computes no convolution in it") as caught:
        build.verify_precision(typed(line, "int8"), "openvino", proof(("Conv", "fp32", 10)), strict=False)

    assert "fell back to float" in caught.value.hint


def test_a_refusal_says_what_was_found_instead(line: "Line") -> None:
    with pytest.raises(BuildError, match=r"\(10 Conv fp32, 1 Gemm fp32\)"):
        found = proof(("Conv", "fp32", 10), ("Gemm", "fp32", 1))
        build.verify_precision(typed(line, "int8"), "openvino", found, strict=False)


def test_int8_with_int8_operations_passes(line: "Line") -> None:
    found = proof(("Conv", "int8", 9), ("Gemm", "fp32", 1))

    build.verify_precision(typed(line, "int8"), "openvino", found, strict=False)


def test_int8_weights_alone_are_no_int8_arithmetic(line: "Line") -> None:
    found = proof(("activation", "fp32", 12), ("weight", "int8", 10))

    with pytest.raises(BuildError, match="computes nothing in it"):
        build.verify_precision(typed(line, "int8"), "tensorrt_rtx", found, strict=True)


def test_int8_products_do_not_stand_for_convolutions(line: "Line") -> None:
    found = proof(("Conv", "fp32", 10), ("Gemm", "int8", 1), ("activation", "int8", 3))

    with pytest.raises(BuildError, match="computes no convolution in it"):
        build.verify_precision(typed(line, "int8"), "tensorrt_rtx", found, strict=True)


def test_a_plan_that_cannot_be_read_is_judged_by_its_typed_network(line: "Line") -> None:
    blind = Proof(source="typed network only", counts=(), network=(("Conv", "fp32", 10), ("concatenation", "fp32", 3)))

    with pytest.raises(BuildError, match=r"computes no convolution in it \(10 Conv fp32, 3 concatenation fp32\)"):
        build.verify_precision(typed(line, "int8"), "tensorrt", blind, strict=True)
    with pytest.raises(BuildError, match="carries fp16, and tensorrt holds 0% of it"):
        build.verify_precision(typed(line, "fp16"), "tensorrt", blind, strict=True)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_typed_engine_must_hold_half_of_a_half_precision(line: "Line", precision: Precision) -> None:
    found = proof(("activation", precision, 4), ("activation", "fp32", 6))

    with pytest.raises(BuildError, match=f"carries {precision}, and tensorrt_rtx holds 40% of it"):
        build.verify_precision(typed(line, precision), "tensorrt_rtx", found, strict=True)


def test_a_typed_engine_in_half_precision_passes(line: "Line") -> None:
    found = proof(("activation", "fp16", 9), ("activation", "fp32", 1), ("weight", "fp32", 90))

    build.verify_precision(typed(line, "fp16"), "tensorrt_rtx", found, strict=True)


def test_a_runtime_that_may_widen_is_not_held_to_half_precision(line: "Line") -> None:
    build.verify_precision(typed(line, "fp16"), "onnxruntime", proof(("Conv", "fp32", 10)), strict=False)


def test_a_real_engine_that_falls_back_to_float_is_refused(line: "Line", kept: Store) -> None:
    with pytest.raises(BuildError, match="carries int8, and onnxruntime computes no convolution in it"):
        build.run(line.graph("int8"), entry(optimize=False), Context(store=kept, connection=line.connection))


def test_a_refused_engine_is_not_kept(line: "Line", tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    (store.root / "lean.onnx").write_bytes(line.store.path(line.lean).read_bytes())
    graph = Artifact(**vars(typed(line, "int8")) | {"path": "lean.onnx"})

    with pytest.raises(BuildError):
        build.run(graph, entry(), Context(store=store, connection=proving(tmp_path, ("Conv", "fp32", 10))))

    assert {path.name for path in store.root.rglob("*")} == {"lean.onnx"}


def test_an_engine_that_proves_its_precision_is_kept(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = proving(tmp_path, ("Conv", "int8", 10))

    made, _ = build.run(line.graph("int8"), entry(threads=7), Context(store=kept, connection=connection))

    assert kept.path(made).read_bytes() == b"an engine"


@pytest.mark.parametrize(
    ("engine", "isa", "said"),
    [
        ("openvino", ("avx2",), True),
        ("openvino", ("avx2", "avx512_vnni"), False),
        ("openvino", ("asimddp",), False),
        ("onnxruntime", ("avx2",), False),
    ],
)
def test_an_engine_whose_sums_may_saturate_says_so(
    line: "Line", kept: Store, tmp_path: Path, engine: str, isa: tuple[str, ...], said: bool
) -> None:
    connection = proving(tmp_path, ("Conv", "int8", 10))
    connection.environment = dataclasses.replace(connection.environment, isa=isa)

    made, _ = build.run(line.graph("int8"), entry(engine), Context(store=kept, connection=connection))

    label = f"int8 · {engine}"
    words = (
        f"{label}: 8-bit weights may saturate on this processor, which has no VNNI: quantize for it (--int8 "
        "does here), or run the graph in ONNX Runtime, which adds in 32 bits"
    )
    assert build.saturating(made) == (words if said else "")


def test_weights_that_leave_room_do_not_saturate(line: "Line", kept: Store, tmp_path: Path) -> None:
    model = onnx.load(kept.path(line.graph("int8")))
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8:
            array = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array // 2, tensor.name))
    narrow = kept.root / "narrow.onnx"
    onnx.save(model, narrow)
    graph = dataclasses.replace(line.graph("int8"), path=narrow.name, sha256=sha256_of(narrow))
    connection = proving(tmp_path, ("Conv", "int8", 10))
    connection.environment = dataclasses.replace(connection.environment, isa=("avx2",))

    made, _ = build.run(graph, entry("openvino"), Context(store=kept, connection=connection))

    assert build.saturating(made) == ""


def test_weights_stored_around_128_are_held_to_the_same_bound(line: "Line", kept: Store, tmp_path: Path) -> None:
    model = onnx.load(kept.path(line.graph("int8")))
    stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.INT8}
    assert any(tensor.dims for tensor in stored.values())
    for name, tensor in stored.items():
        array = onnx.numpy_helper.to_array(tensor).astype("int16") + 128
        tensor.CopyFrom(onnx.numpy_helper.from_array(array.astype("uint8"), name))
    del model.graph.value_info[:]  # they state int8
    shifted = kept.root / "shifted.onnx"
    onnx.save(model, shifted)
    graph = dataclasses.replace(line.graph("int8"), path=shifted.name, sha256=sha256_of(shifted))
    connection = proving(tmp_path, ("Conv", "int8", 10))
    connection.environment = dataclasses.replace(connection.environment, isa=("avx2",))

    made, _ = build.run(graph, entry("openvino"), Context(store=kept, connection=connection))

    assert build.saturating(made).startswith("int8 · openvino: 8-bit weights may saturate")


def test_a_second_build_asks_no_worker(line: "Line", kept: Store, tmp_path: Path) -> None:
    first, _ = build.run(
        line.graph("int8"), entry(threads=7), Context(store=kept, connection=proving(tmp_path, ("Conv", "int8", 1)))
    )

    second, reused = build.run(
        line.graph("int8"), entry(threads=7), Context(store=kept, connection=PretendLink(tmp_path, {}))
    )

    assert (second, reused) == (first, True)


def test_other_options_are_another_engine(line: "Line", kept: Store, tmp_path: Path) -> None:
    connection = proving(tmp_path, ("Conv", "int8", 10))
    first, _ = build.run(line.graph("int8"), entry(threads=7), Context(store=kept, connection=connection))

    second, reused = build.run(line.graph("int8"), entry(threads=8), Context(store=kept, connection=connection))

    assert (second.path != first.path, reused) == (True, False)


def test_the_passport_names_its_parent_and_its_options(line: "Line") -> None:
    made = line.built("int8", "onnxruntime")

    assert made.parent == line.graph("int8").sha256
    assert json.loads(made.options) == {"threads": 0, "optimize": True, "device": "cpu"}


def test_the_passport_is_of_the_file_that_is_there(line: "Line") -> None:
    made = line.built("int8", "onnxruntime")

    assert made.sha256 == sha256_of(line.store.root / made.path)


def test_preprocessing_and_tensors_travel_with_the_engine(line: "Line") -> None:
    made = line.built("int8", "onnxruntime")

    assert (made.preprocess, made.inputs) == (line.lean.preprocess, line.lean.inputs)


def test_an_unknown_option_names_the_nearest(line: "Line", kept: Store) -> None:
    with pytest.raises(RecipeError, match="engine 'onnxruntime': unknown key 'thread'") as caught:
        build.run(line.graph("int8"), entry(thread=2), Context(store=kept, connection=line.connection))

    assert caught.value.hint == "did you mean 'threads'?"


def test_an_unknown_engine_names_the_nearest(line: "Line", kept: Store) -> None:
    with pytest.raises(UnknownNameError, match="no engine is called 'onnxrutime'") as caught:
        build.run(line.graph("int8"), entry("onnxrutime"), Context(store=kept, connection=line.connection))

    assert caught.value.hint == "did you mean 'onnxruntime'?"


def test_a_graph_changed_since_it_was_made_is_not_built(line: "Line", kept: Store) -> None:
    graph = line.graph("int8")
    with (kept.root / graph.path).open("ab") as file:
        file.write(b"more")

    with pytest.raises(StoreError, match="changed since it was made"):
        build.run(graph, entry(threads=7), Context(store=kept, connection=line.connection))


def test_a_half_precision_engine_that_computes_in_float_says_so(line):
    counts = (("Conv", "fp32", 3), ("Gemm", "fp32", 1))
    engine = dataclasses.replace(
        line.built("fp32", "onnxruntime"), name="fp16", precision="fp16", proof=Proof(source="test", counts=counts)
    )

    note = build.widened(engine)

    assert note == "fp16 · onnxruntime stores fp16 and computes in fp32 on this machine"


def test_a_half_precision_engine_that_keeps_it_says_nothing(line):
    counts = (("Conv", "fp16", 3), ("Gemm", "fp32", 1))
    engine = dataclasses.replace(
        line.built("fp32", "onnxruntime"), name="fp16", precision="fp16", proof=Proof(source="test", counts=counts)
    )

    assert build.widened(engine) == ""


@pytest.fixture(scope="module")
def asymmetric(line: "Line", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quantize with ONNX Runtime's defaults: zero points, int32 biases, and a BatchNormalization behind each Concat."""
    path = tmp_path_factory.mktemp("asymmetric") / "asymmetric.onnx"
    ort.quantize_static(line.store.path(line.lean), path, Calibration(line.inputs()))
    return path


@pytest.mark.parametrize(
    ("engine", "words", "cure"),
    [
        ("openvino", r"OV001: node '.+': a concatenation is quantized with a zero point", "--layout portable"),
        (
            "tensorrt_rtx",
            r"TRT001: node '.+': .+ a zero point other than 0 \(and \d+ more: deploykit lint --target tensorrt_rtx\)",
            "tensorrt",
        ),
    ],
)
def test_what_an_engine_is_known_to_refuse_is_refused_before_it_is_asked(
    line: "Line", asymmetric: Path, kept: Store, tmp_path: Path, engine: str, words: str, cure: str
) -> None:
    typed = hand_made(kept, onnx.load(asymmetric), line.graph("int8"), engine)
    connection = PretendLink(tmp_path, {})

    with pytest.raises(BuildError, match=words) as caught:
        build.run(typed, entry(engine), Context(store=kept, connection=connection))

    assert (connection.workers, caught.value.exit_code) == ([], 5)
    assert cure in caught.value.hint


def test_grids_are_written_as_the_target_takes_them_and_the_engine_says_so(
    line: "Line", kept: Store, tmp_path: Path
) -> None:
    pytest.importorskip("openvino", reason="pip install openvino")
    path, operators = tmp_path / "float_norms.onnx", ["Conv", "Concat"]
    ort.quantize_static(line.store.path(line.lean), path, Calibration(line.inputs()), op_types_to_quantize=operators)
    typed = hand_made(kept, onnx.load(path), line.graph("int8"), "openvino")

    built, _ = build.run(typed, entry("openvino"), Context(store=kept, connection=line.connection))

    assert built.made_by.passes == "grids_before_concats, grids_to_uint8"


def on(accelerator: str) -> Device:
    return Device(name="orin", link="ssh", address="orin", accelerator=accelerator)


@pytest.mark.parametrize(
    ("engine", "accelerator", "options"),
    [
        ("onnxruntime", "cuda:0", {"device": "cuda:0"}),
        ("onnxruntime", "cuda:1", {"device": "cuda:1"}),
        ("openvino", "GPU.1", {"device": "GPU.1"}),
        ("openvino", "NPU", {"device": "NPU"}),
        ("tensorrt", "cuda:0", {}),
        ("tensorrt", "dla:1", {"use_dla_core": 1}),
        ("tensorrt_rtx", "cuda:0", {}),
        ("reference", "cuda:0", {}),
    ],
)
def test_the_devices_accelerator_reaches_an_engine_that_knows_it(
    engine: str, accelerator: str, options: dict[str, object]
) -> None:
    given = build.placed(entry(engine), on(accelerator))

    assert given == options
    assert engines.CATALOGUE.get(engine).options(**given)


@pytest.mark.parametrize("engine", engines.CATALOGUE.names())
def test_a_device_that_names_no_accelerator_tells_an_engine_nothing(engine: str) -> None:
    assert build.placed(entry(engine), links.LOCAL) == {}


def test_what_the_entry_says_of_the_place_stands() -> None:
    said = BuildEntry(engine="openvino", variants=("fp32",), options={"device": "CPU"})
    core = BuildEntry(engine="tensorrt", variants=("fp32",), options={"use_dla_core": 1})

    assert build.placed(said, on("cuda:0")) == {"device": "CPU"}
    assert build.placed(core, on("dla:0")) == {"use_dla_core": 1}


@pytest.mark.parametrize(
    ("engine", "accelerator"),
    [
        ("openvino", "cuda:0"),
        ("openvino", "dla:0"),
        ("onnxruntime", "GPU"),
        ("onnxruntime", "dla:0"),
        ("tensorrt", "cuda:1"),
        ("tensorrt", "NPU"),
        ("tensorrt_rtx", "dla:0"),
    ],
)
def test_an_engine_is_refused_where_it_cannot_compute(
    line: "Line", kept: Store, tmp_path: Path, engine: str, accelerator: str
) -> None:
    connection = PretendLink(tmp_path, {})
    connection.device = on(accelerator)

    with pytest.raises(DeviceError) as caught:
        build.run(line.lean, entry(engine), Context(store=kept, connection=connection))

    assert (str(caught.value), caught.value.exit_code) == (
        f"'orin' computes on {accelerator}, which {engine} cannot",
        4,
    )
    assert connection.workers == []


def test_the_refusal_says_how_to_compute_on_the_processor_where_an_engine_can() -> None:
    hints = {}
    for engine in ("openvino", "tensorrt"):
        with pytest.raises(DeviceError) as caught:
            build.placed(entry(engine), on("cuda:1"))
        hints[engine] = caught.value.hint

    assert hints == {
        "openvino": "take another engine, or compute on its processor: deploykit build --engine openvino -o device=cpu",
        "tensorrt": "take another engine",
    }


def test_the_identity_of_a_build_is_the_targets() -> None:
    here = environment.describe_machine()
    there = dataclasses.replace(
        here, host="Linux 5.15.148-tegra aarch64", cpu="ARMv8", l4t="36.4.0", versions=(("onnxruntime", "1.23.0"),)
    )

    assert dict(build.machine_identity(there))["machine"] == "aarch64"
    assert dict(build.machine_identity(there))["l4t"] == "36.4.0"
    assert build.machine_identity(there) != build.machine_identity(here)
