"""Tests of `graph.adoption`: what other programs write is brought into normal form, and the numbers stay."""

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import small_cnns
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy_kit.accuracy import metrics
from deploy_kit.base.errors import InputError
from deploy_kit.graph import onnx_bounds, onnx_file
from deploy_kit.graph.adoption import Adopted, Stated, adopt

SIDES = (12, 12)
NOTHING = Stated()


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A file of another program: what makes it, what is said beside it, and what is told about it."""

    make: Callable[[], onnx.ModelProto]
    told: str
    stated: Stated = NOTHING
    tolerance: float = 2e-6


FOREIGN = {
    "IR 3 with weights as inputs": Foreign(
        make=small_cnns.weights_as_inputs, told="9 weights listed as inputs are constants now"
    ),
    "newer IR": Foreign(make=lambda: small_cnns.small_cnn(ir_version=14), told="IR version 14 → 10"),
    "nodes of one name": Foreign(make=small_cnns.of_one_name, told="8 nodes under the names of others have none now"),
    "open height and width": Foreign(
        make=small_cnns.open_sizes, stated=Stated(sides=SIDES), told=r"open input \['N', 3, 'H', 'W'\] → \['N', 3, 12"
    ),
    "open channels": Foreign(
        make=lambda: small_cnns.open_sizes("N", "C", "H", "W"), stated=Stated(sides=SIDES), told=r"→ \['N', 3, 12, 12\]"
    ),
    "stated shape": Foreign(
        make=small_cnns.open_sizes, stated=Stated(shape=small_cnns.SHAPE), told=r"→ \['N', 3, 12, 12\]"
    ),
    "batch -1": Foreign(make=lambda: small_cnns.open_sizes(-1, 3, 12, 12), told="batch -1 → open"),
    "sides -1": Foreign(
        make=lambda: small_cnns.open_sizes(-1, 3, -1, -1),
        stated=Stated(sides=SIDES),
        told="batch -1 → open; open input",
    ),
    "stale shapes": Foreign(make=small_cnns.stale_shapes, told="4 recorded shapes that contradict .* first 'c1'"),
    "map of 1×1": Foreign(make=small_cnns.ends_in_map, told=r"\['N', 5, 1, 1\] → \['N', 5\] by a Flatten"),
    "float16": Foreign(
        make=lambda: small_cnns.in_type(TensorProto.FLOAT16), told="float16 → float32 throughout", tolerance=2e-2
    ),
    "bfloat16": Foreign(
        make=lambda: small_cnns.in_type(TensorProto.BFLOAT16), tolerance=1e-1,
        told="bfloat16 → float32 throughout, .* not compared: ONNX Runtime has no convolution in bfloat16",
    ),
    "float64": Foreign(
        make=lambda: small_cnns.in_type(TensorProto.DOUBLE), told="float64 → float32 throughout", tolerance=1e-4
    ),
    "uint8": Foreign(make=small_cnns.reads_bytes, told="uint8 → float32 .*--std 0.003921569,0.003921569,0.003921569"),
    "one of two outputs": Foreign(
        make=small_cnns.two_outputs, stated=Stated(output="logits"), told="output 'logits' kept, left out: aux"
    ),
    "a function of its own": Foreign(make=small_cnns.with_function, told="1 function of its own inlined"),
    "an If that the size decides": Foreign(make=small_cnns.with_condition, told="1 If decided"),
    "a scale stated by its shape": Foreign(make=small_cnns.shaped_weights, told="1 constants that are stated by"),
    "an input that nothing reads": Foreign(make=small_cnns.with_unread_input, told="left out: unread"),
    "an output without a shape": Foreign(make=small_cnns.ends_without_shapes, told=""),
    "the domain's full name": Foreign(make=small_cnns.under_full_name, told=""),
    **{
        f"opset {n}": Foreign(make=lambda n=n: small_cnns.small_cnn(n), told=f"operator set {n} → 13")
        for n in range(7, 13)
    },
}  # fmt: skip


def taken(model: onnx.ModelProto, folder: Path, stated: Stated = NOTHING) -> Adopted:
    return adopt(small_cnns.saved(model, folder), stated)


def told(adopted: Adopted) -> str:
    return "; ".join(adopted.changes)


def refusal(model: onnx.ModelProto | Path, folder: Path, stated: Stated = NOTHING) -> InputError:
    path = model if isinstance(model, Path) else small_cnns.saved(model, folder)
    with pytest.raises(InputError) as caught:
        adopt(path, stated)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value) and caught.value.hint
    return caught.value


@pytest.mark.parametrize("kind", FOREIGN)
def test_normal_form_computes_what_torch_computes(kind: str, tmp_path: Path) -> None:
    foreign, x = FOREIGN[kind], small_cnns.pixels()

    adopted = taken(foreign.make(), tmp_path, foreign.stated)

    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert metrics.relative_difference(small_cnns.by_torch(x), found) <= foreign.tolerance


@pytest.mark.parametrize("kind", FOREIGN)
def test_every_change_is_told(kind: str, tmp_path: Path) -> None:
    foreign = FOREIGN[kind]

    adopted = taken(foreign.make(), tmp_path, foreign.stated)

    assert re.search(foreign.told, told(adopted)), told(adopted)


@pytest.mark.parametrize("kind", FOREIGN)
def test_normal_form_has_one_float_input_of_a_known_size_and_one_row(kind: str, tmp_path: Path) -> None:
    foreign = FOREIGN[kind]

    adopted = taken(foreign.make(), tmp_path, foreign.stated)

    onnx_file.save(adopted.model, tmp_path / "normal.onnx")
    model = onnx_file.load(tmp_path / "normal.onnx")
    (given,), (output,) = onnx_file.specs(list(model.graph.inputs)), onnx_file.specs(list(model.graph.outputs))
    assert (given.dtype, given.shape[1:], output.shape[1:]) == ("float", (3, 12, 12), (5,))
    assert onnx_file.opset(model) >= 13
    assert 4 <= model.ir_version <= 10
    assert not model.functions


@pytest.mark.parametrize("kind", FOREIGN)
def test_normal_form_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    foreign = FOREIGN[kind]
    once = taken(foreign.make(), tmp_path, foreign.stated)

    again = taken(ir.serde.serialize_model(once.model), tmp_path)

    assert (again.changes, again.before) == ((), None)


@pytest.mark.parametrize("kind", ["float16", "map of 1×1", "opset 9", "an If that the size decides"])
def test_what_it_was_before_can_be_run_beside_it(kind: str, tmp_path: Path) -> None:
    foreign, x = FOREIGN[kind], small_cnns.pixels()

    adopted = taken(foreign.make(), tmp_path, foreign.stated)

    assert adopted.before is not None
    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    before = small_cnns.computed(adopted.before, x).reshape(found.shape)
    assert metrics.relative_difference(before, found) <= (adopted.tolerance or 1e-6)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.BFLOAT16])
def test_what_onnx_runtime_cannot_compute_is_not_compared(kind: int, tmp_path: Path) -> None:
    model = small_cnns.in_type(kind)
    with pytest.raises(Exception, match=r"Could not find an implementation|is invalid"):
        onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    assert taken(model, tmp_path).before is None


def test_what_onnx_runtime_cannot_compute_is_compared_from_its_float32_form_on(tmp_path: Path) -> None:
    """The converter of operator sets is wrong of some operators, such as Hardmax below operator set 13."""
    plain, model, x = small_cnns.small_cnn(11), small_cnns.in_type(TensorProto.DOUBLE, 11), small_cnns.pixels()
    for one in (plain, model):
        small_cnns.node_of(one, "relu2").op_type = "Hardmax"

    adopted = taken(model, tmp_path)

    assert adopted.before is not None and adopted.tolerance is None
    wanted, before = small_cnns.computed(plain, x), small_cnns.computed(adopted.before, x)
    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert metrics.relative_difference(wanted, before) <= 1e-5
    assert metrics.relative_difference(before, found) > 1e-2  # which `export` refuses


def test_a_value_within_the_graph_can_be_made_the_output(tmp_path: Path) -> None:
    x = small_cnns.pixels()

    adopted = taken(small_cnns.small_cnn(), tmp_path, Stated(output="f"))

    (wanted,) = ReferenceEvaluator(adopted.model and _with_output(small_cnns.small_cnn(), "f")).run(["f"], {"x": x})
    assert np.allclose(small_cnns.computed(ir.serde.serialize_model(adopted.model), x), wanted, rtol=1e-5)
    assert told(adopted) == "output 'f' kept, left out: logits"
    assert "w3" not in adopted.model.graph.initializers


def _with_output(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    model.graph.output.append(helper.make_empty_tensor_value_info(name))
    return model


def test_preprocessing_in_the_file_gives_its_open_size(tmp_path: Path) -> None:
    model = small_cnns.open_sizes()
    facts = (
        '{"color":"rgb","height":12,"interpolation":"bilinear","mean":[0,0,0],"resize":null,"std":[1,1,1],"width":12}'
    )
    helper.set_model_props(model, {onnx_file.PREPROCESS_KEY: facts})

    adopted = taken(model, tmp_path)

    assert "open input ['N', 3, 'H', 'W'] → ['N', 3, 12, 12]" in told(adopted)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    x = small_cnns.pixels()

    adopted = adopt(small_cnns.external(tmp_path), Stated())

    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert np.array_equal(found, small_cnns.computed(small_cnns.small_cnn(), x))


# Refused, and what each refusal says to do


def test_open_size_is_asked_for_and_the_answer_is_taken(tmp_path: Path) -> None:
    error = refusal(small_cnns.open_sizes(), tmp_path)

    assert "its size is open: x ['N', 3, 'H', 'W']" in str(error)
    assert "--input 224x224" in error.hint
    taken(small_cnns.open_sizes(), tmp_path, Stated(sides=(224, 224)))


def test_another_size_than_the_fixed_one_is_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.small_cnn(), tmp_path, Stated(sides=(24, 24)))

    assert "its input is fixed to [1, 3, 12, 12], and --input 24x24 cannot change it" in str(error)
    assert "--input 12x12" in error.hint
    taken(small_cnns.small_cnn(), tmp_path, Stated(sides=SIDES))


def test_size_that_the_network_does_not_fit_is_refused(tmp_path: Path) -> None:
    model = small_cnns.open_sizes()
    small_cnns.node_of(model, "mean").op_type = "Identity"

    error = refusal(model, tmp_path, Stated(sides=(24, 24)))

    assert "its operators do not fit the input x [0, 3, 24, 24]" in str(error)


def test_several_outputs_are_listed_and_one_can_be_chosen(tmp_path: Path) -> None:
    folder = tmp_path / "its name; has words"
    folder.mkdir()
    error = refusal(small_cnns.two_outputs(), folder)

    assert "expected one output, found 2: aux, logits" in str(error)
    command = ["deploykit", "export", str(folder / "model.onnx"), "--output", "aux"]
    assert shlex.split(error.hint.removeprefix("choose one: ")) == command
    taken(small_cnns.two_outputs(), tmp_path, Stated(output="aux"))


def test_unknown_output_names_the_nearest(tmp_path: Path) -> None:
    error = refusal(small_cnns.two_outputs(), tmp_path, Stated(output="logit"))

    assert "no output is called 'logit'" in str(error)
    assert error.hint == "did you mean 'logits'?"


def test_index_of_the_class_is_no_output_and_what_it_is_chosen_from_is(tmp_path: Path) -> None:
    error = refusal(small_cnns.chosen_class(), tmp_path)

    assert "output 'logits' is int64" in str(error)
    assert error.hint.endswith("--output scores")
    taken(small_cnns.chosen_class(), tmp_path, Stated(output="scores"))


@pytest.mark.parametrize("opset", [9, 13, 14, 17])
def test_norm_that_trains_is_refused_by_name(opset: int, tmp_path: Path) -> None:
    error = refusal(small_cnns.training_norm(opset), tmp_path)

    assert "BatchNormalization in training mode at node 'norm1'" in str(error)
    assert error.hint == "export it again after model.eval()"


@pytest.mark.parametrize(
    ("training", "constant", "says"),
    [
        (True, False, "Dropout in training mode at node 'dropped'"),
        (True, True, "Dropout in training mode at node 'dropped'"),
        (None, False, "Dropout whose training mode is decided at run time at node 'dropped'"),
    ],
)
def test_dropout_that_trains_is_refused_by_name(
    training: bool | None, constant: bool, says: str, tmp_path: Path
) -> None:
    assert says in str(refusal(small_cnns.dropout(training, constant=constant), tmp_path))


@pytest.mark.parametrize("constant", [True, False])
def test_dropout_at_inference_is_taken(constant: bool, tmp_path: Path) -> None:
    assert taken(small_cnns.dropout(False, constant=constant), tmp_path).changes == ()


def test_output_that_is_listed_twice_is_one(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    model.graph.output.append(model.graph.output[0])

    assert [value.name for value in taken(model, tmp_path).model.graph.outputs] == ["logits"]


def test_input_of_other_channels_than_the_first_convolution_reads_is_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.small_cnn(dims=(1, 12, 12, 3)), tmp_path)

    assert "input 'x' [1, 12, 12, 3] has 12 channels, Conv 'conv1' reads 3" in str(error)


def test_input_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    inner = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 3, 12, 12])
    model.graph.input[0].type.CopyFrom(helper.make_sequence_type_proto(inner))

    assert "'x' is of ONNX's type sequence, expected a tensor" in str(refusal(model, tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("preprocess", "{}", "'height' is missing"), ("classes", '{"a": 1}', "expected a list of names"),
     ("classes", "[" * 100_000, "is not JSON"), ("classes", '["cat", "dog"]', "names 2 classes, its output has 5")],
)  # fmt: skip
def test_metadata_that_deploykit_did_not_write_is_refused_by_its_key(
    key: str, value: str, said: str, tmp_path: Path
) -> None:
    model = small_cnns.small_cnn()
    helper.set_model_props(model, {f"deploykit.{key}": value})

    error = refusal(model, tmp_path)

    assert f"deploykit.{key}" in str(error) and said in str(error)
    helper.set_model_props(model, {})
    taken(model, tmp_path)


@pytest.mark.parametrize(("version", "known"), [(1, False), (2, True), (3, True), (99, True), (127, True)])
def test_file_is_known_by_its_first_bytes_whatever_its_ir_version(version: int, known: bool, tmp_path: Path) -> None:
    """TensorFlow's saved models begin with 8, 1."""
    path = small_cnns.saved(small_cnns.small_cnn(ir_version=version), tmp_path)

    assert onnx_bounds.is_onnx(path) is known


def test_random_numbers_are_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    small_cnns.node_of(model, "relu1").op_type = "RandomNormalLike"

    assert "RandomNormalLike draws random numbers, at node 'relu1'" in str(refusal(model, tmp_path))


@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_ENABLE_EXTENDED"])
def test_file_that_onnx_runtime_optimized_is_refused_and_the_basic_level_is_taken(level: str, tmp_path: Path) -> None:
    source = small_cnns.saved(small_cnns.small_cnn(), tmp_path)

    error = refusal(optimized(source, level), tmp_path)

    assert "is of com.microsoft" in str(error) and "ONNX Runtime's optimizer wrote this file" in str(error)
    assert "graph_optimization_level = ORT_ENABLE_BASIC" in error.hint
    x = small_cnns.pixels()
    basic = adopt(optimized(source, "ORT_ENABLE_BASIC"), Stated())
    found = small_cnns.computed(ir.serde.serialize_model(basic.model), x)
    assert metrics.relative_difference(small_cnns.computed(source, x), found) < 1e-6


def optimized(source: Path, level: str) -> Path:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(source.with_name(f"{level}.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return source.with_name(f"{level}.onnx")


def test_operator_of_an_unknown_domain_is_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    small_cnns.node_of(model, "relu1").domain = "my.ops"
    model.opset_import.append(helper.make_opsetid("my.ops", 1))

    error = refusal(model, tmp_path)

    assert "Relu 'relu1' is of the domain 'my.ops'" in str(error)


def test_operator_set_that_nothing_computes_is_refused_and_the_named_line_raises_it(tmp_path: Path) -> None:
    model = small_cnns.weights_as_inputs(6)

    error = refusal(model, tmp_path)

    assert "operator set 6; what computes ONNX today begins at 7" in str(error)
    assert "onnx.version_converter.convert_version(onnx.load(path), 13)" in error.hint
    raised = onnx.version_converter.convert_version(onnx.load(tmp_path / "model.onnx"), 13)
    found = small_cnns.computed(ir.serde.serialize_model(taken(raised, tmp_path).model), small_cnns.pixels())
    wanted = small_cnns.computed(small_cnns.small_cnn(), small_cnns.pixels())
    assert metrics.relative_difference(wanted, found) < 1e-6


def test_operator_set_of_the_future_is_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.small_cnn(99), tmp_path)

    assert "operator set 99, and onnx" in str(error)
    assert "opset_version=18" in error.hint


@pytest.mark.parametrize("stated", [None, 0.1])
def test_function_keeps_what_its_caller_leaves_to_its_default(stated: float | None, tmp_path: Path) -> None:
    model, x = small_cnns.with_default_in_function(stated), small_cnns.pixels()

    found = small_cnns.computed(ir.serde.serialize_model(taken(model, tmp_path).model), x)

    assert metrics.relative_difference(small_cnns.computed(model, x), found) <= 2e-6


@pytest.mark.parametrize(("kind", "opset"), [("GroupNormalization", 21), ("MeanVarianceNormalization", 13)])
def test_norm_whose_shape_onnx_does_not_infer_is_written_out(kind: str, opset: int, tmp_path: Path) -> None:
    """As torch's exporter writes them from operator set 21 on."""
    model, x = small_cnns.with_group_norms(kind, opset), small_cnns.pixels()

    adopted = taken(model, tmp_path)

    assert f"{kind} written out as the operators that define it" in told(adopted)
    found = small_cnns.computed(ir.serde.serialize_model(adopted.model), x)
    assert metrics.relative_difference(small_cnns.computed(model, x), found) <= 2e-6


def test_two_versions_of_one_operator_set_are_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.under_two_opsets(), tmp_path)

    assert "states two versions of one operator set, 17 and 11" in str(error)


def test_function_that_is_called_as_an_operator_is_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.with_operator_of_its_own(), tmp_path)

    assert "its function 'Relu' has the name of an ONNX operator" in str(error)


def test_if_that_the_input_decides_is_refused(tmp_path: Path) -> None:
    error = refusal(small_cnns.with_condition(decided=False), tmp_path)

    assert "If 'choice' decides at run time which graph it runs" in str(error)


def test_integers_that_are_computed_with_are_refused(tmp_path: Path) -> None:
    model = small_cnns.reads_bytes()
    model.graph.node.insert(0, helper.make_node("Add", ["x", "x"], ["sum"], name="sum"))
    small_cnns.node_of(model, "cast").input[0] = "sum"

    error = refusal(model, tmp_path)

    assert "its input 'x' is uint8, and Add 'sum' computes with it before it is cast" in str(error)


def test_integers_may_be_moved_before_they_are_cast(tmp_path: Path) -> None:
    model, x = small_cnns.reads_bytes(), small_cnns.pixels()
    model.graph.node.insert(0, helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 3, 2]))
    small_cnns.node_of(model, "cast").input[0] = "turned"
    wanted = small_cnns.computed(model, x.astype(np.uint8))

    adopted = taken(model, tmp_path)

    assert np.array_equal(small_cnns.computed(ir.serde.serialize_model(adopted.model), x), wanted)


def test_two_inputs_are_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, [1, 5]))
    model.graph.node.append(helper.make_node("Add", ["logits", "b"], ["y"]))
    model.graph.output[0].name = "y"

    assert "expected one input, found 2: x, b" in str(refusal(model, tmp_path))


def test_sparse_weights_are_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "b3"))
    values = numpy_helper.from_array(np.ones(1, np.float32), "b3")
    indices = numpy_helper.from_array(np.array([2], np.int64), "at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))

    assert "weight 'b3' is stored as a sparse tensor" in str(refusal(model, tmp_path))


def test_sparse_constants_are_refused(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    values = numpy_helper.from_array(np.ones(1, np.float32), "")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([2], np.int64)), [5])
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "b3"))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["b3"], sparse_value=sparse))

    assert "weight 'b3' is stored as a sparse tensor" in str(refusal(model, tmp_path))


@pytest.mark.parametrize("name", ["b3", "x"])
def test_output_that_no_operator_computes_is_refused(name: str, tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    model.graph.output[0].name = name

    assert f"output '{name}' is an input or a weight" in str(refusal(model, tmp_path))


def test_graph_without_an_output_is_told_which_to_take(tmp_path: Path) -> None:
    model = small_cnns.small_cnn()
    wanted = model.graph.output[0].name
    del model.graph.output[:]

    error = refusal(model, tmp_path)

    assert "expected one output, found 0" in str(error)
    assert error.hint.endswith(f" --output {wanted}")
    adopt(tmp_path / "model.onnx", Stated(output=wanted))


def test_weight_that_is_not_finite_does_not_survive_widening(tmp_path: Path) -> None:
    model = small_cnns.in_type(TensorProto.FLOAT16)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full((8, 3, 3, 3), np.inf, np.float16), "w1"))

    assert "weight 'w1' is not finite" in str(refusal(model, tmp_path))
