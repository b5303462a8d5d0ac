"""Networks whose blocks are joined by skip connections are compared at the values that all forms name alike."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from dense_graphs import Sketch
from planted import Forms, change, maker, weights_of
from small_forms import simplified_forms
from tiny_densenet import tiny_recipe

from deploy_kit import recipe
from deploy_kit.analysis.difference import points
from deploy_kit.graph import onnx_file
from deploy_kit.store import Store

pytestmark = pytest.mark.slow

MODEL = Path(__file__).parents[3] / "models" / "fcdensenet_scenes.onnx"
FORMS = ("portable", "depthwise", "tensorrt", "everything", "ort", "fp16")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    """The trained FC-DenseNet, exported and simplified, with images of blurred noise."""
    folder, random = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    images = random.integers(0, 256, (24, 8, 8), np.uint8).repeat(8, 1).repeat(8, 2)
    np.savez(folder / "noise.npz", images=images)
    base = tiny_recipe(folder).model_dump(mode="json", exclude_none=True)
    base["source"]["checkpoint"] = str(MODEL)
    base["quantize"]["calibration"] = base["check"]["images"] = str(folder / "noise.npz")
    base["simplify"]["passes"] = recipe.load_recipe("default").simplify.passes
    return simplified_forms(folder, recipe.parse_recipe(base))


@pytest.mark.parametrize("form", FORMS)
def test_no_form_is_accused(form: str, scenes: Forms, store: Store) -> None:
    found = scenes.difference(scenes.file("exported"), scenes.file(form), store)

    assert found.part == ""
    assert found.every_layer
    assert len(found.points) == 26  # its convolutions, and the logits in the place of the last one's name
    assert found.unlike == ()


def test_float_forms_differ_by_rounding_alone(scenes: Forms, store: Store) -> None:
    found = scenes.difference(scenes.file("exported"), scenes.file("simplified"), store)

    assert min(row.sqnr_db for row in found.points) > 100


@pytest.mark.parametrize(
    "tensor", ["/shrink.0/shrink.0.0/shrink.0.0.2/Conv_output_0", "/up.0/layers.2/layers.2.2/Conv_output_0"]
)
def test_a_scale_that_is_wrong_is_found_where_it_is(tensor: str, scenes: Forms, store: Store) -> None:
    proto = onnx.load(scenes.file("portable"))
    made = next(node for node in proto.graph.node if {tensor, f"{tensor}.real"} & set(node.output))
    change(proto, weights_of(proto, made)[1], lambda scale: 4 * scale)
    onnx.save(proto, scenes.folder / "faulty.onnx")

    found = scenes.difference(scenes.file("exported"), scenes.folder / "faulty.onnx", store)

    assert (found.part, found.sign) == (tensor, "fall")


def test_numbers_below_0_are_cut_only_where_relus_alone_read_them() -> None:
    sketch = Sketch()
    x = sketch.stem()
    kept = sketch.conv(x, 4, 3, pad=1)
    cut = sketch.conv(sketch.node("Relu", kept), 4, 3, pad=1)
    model = sketch.model(sketch.head(sketch.concat(kept, sketch.node("Relu", cut))))

    found = points.named_points_of(model)

    assert (found[kept].rectified, found[cut].rectified) == (False, True)
    negative, zero = np.full((1, 4, 2), -1.0), np.zeros((1, 4, 2))
    assert np.array_equal(*points.in_common(negative, zero, [found[cut], found[cut]]))
    assert not np.array_equal(*points.in_common(negative, zero, [found[kept], found[kept]]))


def test_names_that_the_int8_writer_gives_lead_back(scenes: Forms) -> None:
    wanted, found = (points.named_points_of(onnx_file.load(scenes.file(form))) for form in ("simplified", "portable"))

    assert list(found) == list(wanted)
    assert all(found[name].whole for name in found if name != "logits")
    proto = onnx.load(scenes.file("portable"))
    assert all(maker(proto, point.tensor) for point in found.values())
