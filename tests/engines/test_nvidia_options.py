"""Options of both NVIDIA engines: read by trtexec's names, refused in words where they cannot be."""

from pathlib import Path

import pytest

from deploy_kit import engines
from deploy_kit.base.errors import BuildError, DeviceError, RecipeError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.engines import _cuda, tensorrt, tensorrt_rtx
from deploy_kit.engines._nvidia import verify_options
from deploy_kit.engines._nvidia.options import TensorRtOptions, parse_shapes
from deploy_kit.records import codec

with_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))
without_gpu = pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")


def refusal(flavour: object, **options: object) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        verify_options(flavour, TensorRtOptions(**options))
    return caught.value


def test_shapes_are_read_as_trtexec_writes_them() -> None:
    assert parse_shapes("input:1x3x224x224,mask:0:7x1", "min_shapes") == {"input": (1, 3, 224, 224), "mask:0": (7, 1)}


@pytest.mark.parametrize("text", ["1x3x224x224", "input:1x3xHxW", "input:0x3", "input:", ":1x3", "input:1x3,"])
def test_a_shape_written_another_way_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RecipeError, match=r"min_shapes: .*: expected NAME:SHAPE with sides of 1 or more") as caught:
        TensorRtOptions(min_shapes=(text,))

    assert caught.value.hint == "e.g. input:1x3x224x224"


def test_each_entry_of_the_lists_is_one_profile() -> None:
    options = TensorRtOptions(
        min_shapes=("x:1x3", "x:8x3"), opt_shapes=("x:2x3", "x:16x3"), max_shapes=("x:4x3", "x:32x3")
    )

    assert options.profiles[1] == ({"x": (8, 3)}, {"x": (16, 3)}, {"x": (32, 3)})


def test_shapes_left_out_are_those_that_were_given() -> None:
    assert TensorRtOptions(opt_shapes=("x:2x3",)).profiles == (({"x": (2, 3)}, {"x": (2, 3)}, {"x": (2, 3)}),)


def test_lists_of_different_length_are_refused_with_both_numbers() -> None:
    with pytest.raises(RecipeError) as caught:
        TensorRtOptions(min_shapes=("x:1x3",), max_shapes=("x:2x3", "x:4x3"))

    assert (
        str(caught.value) == "shapes: expected one entry a profile in each list, found 1 in min_shapes, 2 in max_shapes"
    )


@pytest.mark.parametrize(
    ("option", "value", "wanted"),
    [
        ("builder_optimization_level", 6, "builder_optimization_level: expected 0..5, found 6"),
        ("workspace_mib", -1, "workspace_mib: expected 0 or more, found -1"),
    ],
)
def test_a_number_out_of_range_is_named(option: str, value: int, wanted: str) -> None:
    with pytest.raises(RecipeError) as caught:
        TensorRtOptions(**{option: value})

    assert str(caught.value) == wanted


def test_a_level_that_does_not_exist_gives_the_known_ones() -> None:
    with pytest.raises(RecipeError, match="expected one of none, ampere\\+, sameComputeCapability, found 'hopper'"):
        codec.from_json(TensorRtOptions, {"hardware_compatibility_level": "hopper"}, "engine 'tensorrt'")


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("builder_optimization_level", 5, "every level gives the same plan, byte for byte"),
        ("version_compatible", True, "ships no lean runtime"),
        ("hardware_compatibility_level", "ampere+", "name several GPUs in compute_capabilities instead"),
        ("use_dla_core", 0, "has no DLA; engine 'tensorrt' on a Jetson has"),
    ],
)
def test_rtx_says_why_it_refuses_an_option(option: str, value: object, reason: str) -> None:
    error = refusal(tensorrt_rtx._FLAVOUR, **{option: value})

    assert str(error).startswith(f"engine 'tensorrt_rtx'.{option}: TensorRT-RTX ")
    assert reason in str(error)
    assert error.hint == f"leave '{option}' out"


def test_tensorrt_says_why_it_builds_for_no_other_gpu() -> None:
    error = refusal(tensorrt._FLAVOUR, compute_capabilities=("8.9",))

    assert "builds for the GPU of the machine it runs on; only tensorrt_rtx builds for others" in str(error)


@pytest.mark.parametrize("name", ["tensorrt", "tensorrt_rtx"])
def test_what_a_flavour_refuses_is_an_option(name: str) -> None:
    flavour = {"tensorrt": tensorrt, "tensorrt_rtx": tensorrt_rtx}[name]._FLAVOUR

    assert set(flavour.refuses) <= set(codec.to_json(TensorRtOptions()))
    assert engines.CATALOGUE.get(name).options is TensorRtOptions


@pytest.mark.slow
@with_rtx
@pytest.mark.parametrize("level", [0, 5])
def test_levels_of_rtx_give_the_same_plan_byte_for_byte(level: int, small_graph: Path, tmp_path: Path) -> None:
    import tensorrt_rtx as trt

    plans = []
    for chosen in (3, level):
        builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, builder.logger)
        assert parser.parse_from_file(str(small_graph))
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        config.builder_optimization_level = chosen
        plans.append(bytes(builder.build_serialized_network(network, config)))

    assert plans[0] == plans[1]


@with_rtx
@without_gpu
@pytest.mark.parametrize("option", ["refit", "strip_weights"])
def test_weights_to_be_exchanged_need_the_gpu_of_rtx(option: str, small_graph: Path, tmp_path: Path) -> None:
    options = TensorRtOptions(compute_capabilities=("8.9",), **{option: True})

    with pytest.raises(BuildError) as caught:
        tensorrt_rtx.build(small_graph, tmp_path, options)

    assert str(caught.value) == (
        f"engine 'tensorrt_rtx'.{option}: needs the GPU here and one compute capability, found no GPU and 1"
    )
    assert caught.value.hint == f"leave '{option}' out, or build on the machine that runs the plan"


@without_gpu
def test_tensorrt_builds_nothing_where_no_gpu_is() -> None:
    with pytest.raises(DeviceError) as caught:
        tensorrt._FLAVOUR.capabilities(None, TensorRtOptions())

    assert str(caught.value) == "engine 'tensorrt': cannot build: no NVIDIA GPU on this machine"
    assert "tensorrt_rtx --compute-capability 8.9" in caught.value.hint
