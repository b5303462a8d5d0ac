"""Open inputs and their optimization profiles: built by TensorRT-RTX itself, or refused with the flags that fit."""

from pathlib import Path

import pytest

from deploy_kit.base.errors import BuildError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.engines import tensorrt_rtx
from deploy_kit.engines._nvidia.options import TensorRtOptions

pytestmark = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))


def build(onnx_file: Path, folder: Path, **shapes: tuple[str, ...]) -> Path:
    tensorrt_rtx.build(onnx_file, folder, TensorRtOptions(compute_capabilities=("8.9",), **shapes))
    return folder / "model.rtx.plan"


def refusal(onnx_file: Path, folder: Path, **shapes: tuple[str, ...]) -> BuildError:
    with pytest.raises(BuildError) as caught:
        build(onnx_file, folder, **shapes)
    assert not (folder / "model.rtx.plan").exists()
    return caught.value


def test_a_batch_of_1_to_32_is_built(open_graph: Path, tmp_path: Path) -> None:
    shapes = {"min_shapes": ("input:1x3x8x8",), "opt_shapes": ("input:8x3x8x8",), "max_shapes": ("input:32x3x8x8",)}

    assert build(open_graph, tmp_path, **shapes).stat().st_size > 0


def test_two_profiles_are_built(open_graph: Path, tmp_path: Path) -> None:
    plan = build(open_graph, tmp_path, min_shapes=("input:1x3x8x8", "input:8x3x8x8"),
                 max_shapes=("input:8x3x8x8", "input:32x3x8x8"))  # fmt: skip

    assert plan.stat().st_size > 0


def test_an_open_input_without_shapes_is_refused_with_flags_that_build(open_graph: Path, tmp_path: Path) -> None:
    error = refusal(open_graph, tmp_path)

    assert str(error) == f"{open_graph}: input 'input' is open (?x3x8x8) and no shapes were given"
    words = error.hint.split("; or export with a fixed batch: --batch N")[0].split()
    flags = dict(zip(words[4::2], words[5::2], strict=True))
    assert flags == {"--min-shapes": "input:1x3x8x8", "--opt-shapes": "input:1x3x8x8", "--max-shapes": "input:32x3x8x8"}
    build(open_graph, tmp_path, **{name[2:].replace("-", "_"): (text,) for name, text in flags.items()})


def test_a_fixed_input_takes_no_shapes(small_graph: Path, tmp_path: Path) -> None:
    error = refusal(small_graph, tmp_path, opt_shapes=("input:4x3x8x8",))

    assert str(error) == f"{small_graph}: input 'input' has the fixed shape 2x3x8x8, and shapes were given"
    assert error.hint == "leave the shapes out, or export with --dynamic"


def test_an_input_that_is_not_there_gives_those_that_are(open_graph: Path, tmp_path: Path) -> None:
    error = refusal(open_graph, tmp_path, opt_shapes=("image:4x3x8x8",))

    assert (str(error), error.hint) == (f"{open_graph}: has no input 'image'", "its inputs: input")


@pytest.mark.parametrize("shape", ["4x3x8", "4x1x8x8"])
def test_a_shape_of_another_kind_is_refused_with_the_right_one(shape: str, open_graph: Path, tmp_path: Path) -> None:
    error = refusal(open_graph, tmp_path, opt_shapes=(f"input:{shape}",))

    assert f"input 'input': expected shapes like ?x3x8x8, found {shape}, {shape}, {shape}" in str(error)


def test_shapes_out_of_order_are_refused(open_graph: Path, tmp_path: Path) -> None:
    error = refusal(open_graph, tmp_path, min_shapes=("input:9x3x8x8",), max_shapes=("input:4x3x8x8",))

    assert str(error).endswith("input 'input': expected min ≤ opt ≤ max, found 9x3x8x8 ≤ 4x3x8x8 ≤ 4x3x8x8")
