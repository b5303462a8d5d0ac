"""Tests of `quantize`: what is made is described, and images that would give wrong ranges are refused."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import tiny_graphs
from PIL import Image
from stage_inputs import images_of
from stand_ins import PretendLink, hand_made, scaled
from tiny_densenet import TINY_PREPROCESS, save_images

from deploy_kit.base.errors import InputError, RecipeError, UnknownNameError
from deploy_kit.base.progress import ProgressEvent
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.context import Context
from deploy_kit.devices import links
from deploy_kit.devices.links import Connection
from deploy_kit.graph import onnx_file
from deploy_kit.programs.worker import WorkerProgram
from deploy_kit.recipe import Variant
from deploy_kit.records.artifacts import Artifact
from deploy_kit.stages import quantize
from deploy_kit.store import Store

Run = Callable[..., tuple[Artifact, bool]]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> PretendLink:
    """Worker operations in this process: quicker than a process for each; `tiny_graphs` uses the real link."""
    return PretendLink(tmp_path_factory.mktemp("link"), WorkerProgram().operations)


@pytest.fixture
def lean(store: Store) -> Artifact:
    result, data = tiny_graphs.simplified()
    return tiny_graphs.place(store, result.onnx, data)


@pytest.fixture
def calibration(tmp_path: Path) -> str:
    return str(save_images(tmp_path / "calibration.npz", 10, seed=1))


@pytest.fixture
def run(store: Store, connection: Connection, lean: Artifact) -> Run:
    def run(
        scheme: str, images: str | None, options: dict[str, Any] | None = None, artifact: Artifact = lean
    ) -> tuple[Artifact, bool]:
        variant = Variant(name="small", scheme=scheme, options=options or {})
        return quantize.run(
            artifact, variant, Context(store=store, connection=connection), calibration=images_of(images)
        )

    return run


def save_folder(folder: Path, sizes: list[int]) -> str:
    folder.mkdir()
    for index, size in enumerate(sizes):
        ramp = np.add.outer(np.arange(size), np.arange(size)) + index
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{index}.png")
    return str(folder)


def test_passport_says_what_the_file_is(run: Run, calibration: str, lean: Artifact, store: Store) -> None:
    made, _ = run("int8_ort", calibration)

    file = store.path(made)
    assert (made.name, made.stage, made.precision, made.kind) == ("small", "quantize", "int8", "onnx")
    assert (made.sha256, made.size_bytes) == (sha256_of(file), file.stat().st_size)
    assert (made.parent, made.inputs, made.outputs) == (lean.sha256, lean.inputs, lean.outputs)


def test_passport_says_how_it_was_made(run: Run, calibration: str) -> None:
    made, _ = run("int8_ort", calibration, {"symmetric": True})

    facts = dict(made.made_by.rows)
    assert (facts["scheme"], facts["calibration"], facts["images"]) == ("int8_ort", calibration, "10")
    assert facts["calibration data sha256"] == images_of(calibration).open(made.preprocess).digest
    assert '"symmetric":true' in facts["options"]
    assert int(facts["peak_memory_mib"]) > 0
    assert {"onnx", "onnxruntime"} <= facts.keys()


def test_passport_counts_the_images_that_were_used(run: Run, calibration: str, store: Store) -> None:
    """A graph of batch 3 uses nine of ten images."""
    model = tiny_graphs.parse(
        "g (float[3,1,16,16] x) => (float[3,2,16,16] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", w=np.ones((2, 1, 3, 3))
    )
    onnx_file.save(model, store.root / "model.onnx")
    artifact = dataclasses.replace(
        tiny_graphs.simplified()[0].onnx,
        path="model.onnx",
        sha256=sha256_of(store.root / "model.onnx"),
        inputs=onnx_file.specs(tuple(model.graph.inputs)),
        outputs=onnx_file.specs(tuple(model.graph.outputs)),
    )

    made, _ = run("int8_ort", calibration, artifact=artifact)

    assert dict(made.made_by.rows)["images"] == "9"


def test_scheme_without_calibration_names_no_images(run: Run, calibration: str) -> None:
    made, _ = run("fp32", calibration)

    assert not {"calibration", "images", "calibration data sha256"} & dict(made.made_by.rows).keys()


@pytest.mark.parametrize("scheme", ["fp32", "bf16", "int8_ort"])
def test_preprocess_travels_in_the_file(scheme: str, run: Run, calibration: str, store: Store) -> None:
    made, _ = run(scheme, calibration)

    assert onnx_file.preprocess(onnx_file.load(store.path(made))) == TINY_PREPROCESS


def test_preprocess_of_the_passport_is_embedded_where_the_graph_had_none(
    run: Run, lean: Artifact, store: Store
) -> None:
    model = tiny_graphs.simplified_model()
    model.metadata_props.clear()
    onnx_file.save(model, store.root / "bare.onnx")
    bare = dataclasses.replace(lean, path="bare.onnx", sha256=sha256_of(store.root / "bare.onnx"))

    made, _ = run("fp16", None, artifact=bare)

    assert onnx_file.preprocess(onnx_file.load(store.path(made))) == TINY_PREPROCESS


def test_architecture_travels_in_the_file(run: Run, calibration: str, store: Store) -> None:
    made, _ = run("int8_ort", calibration)

    assert "deploykit.densenet" in onnx_file.load(store.path(made)).metadata_props


@pytest.mark.parametrize("images", [None, "synthetic"])
@pytest.mark.parametrize("scheme", ["int8_ort", "int8_nncf"])
def test_calibration_without_real_images_is_refused(scheme: str, images: str | None, run: Run) -> None:
    message = f"scheme '{scheme}' needs images to calibrate with, and noise would give wrong ranges"
    with pytest.raises(InputError, match=message) as caught:
        run(scheme, images)

    assert "--calibration FOLDER" in caught.value.hint


def test_variants_that_calibrate_are_refused_before_any_work_where_there_are_no_images() -> None:
    fp16, int8 = (Variant(name=name, scheme=scheme) for name, scheme in (("fp16", "fp16"), ("int8", "int8_portable")))

    quantize.require_calibration((fp16,), None)
    with pytest.raises(InputError, match="scheme 'int8_portable' needs images to calibrate with"):
        quantize.require_calibration((fp16, int8), None)


@pytest.mark.parametrize("images", [None, "synthetic"])
def test_scheme_that_does_not_calibrate_needs_no_images(images: str | None, run: Run) -> None:
    made, _ = run("fp16", images)

    assert made.precision == "fp16"


def test_images_of_another_size_are_refused_and_the_first_named(run: Run, tmp_path: Path) -> None:
    large = str(save_images(tmp_path / "large.npz", 3, size=28))

    with pytest.raises(InputError, match=r"large\.npz: image 0: expected 16×16 px, found 28×28") as caught:
        run("int8_ort", large)

    assert "--resize 16" in caught.value.hint


def test_one_image_of_another_size_is_named(run: Run, tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "mixed", [16, 16, 20, 16])

    with pytest.raises(InputError, match=r"mixed: 2\.png: expected 16×16 px, found 20×20"):
        run("int8_ort", folder)


def test_empty_npz_is_refused(run: Run, tmp_path: Path) -> None:
    empty = str(save_images(tmp_path / "empty.npz", 0))

    with pytest.raises(InputError, match=r"empty\.npz: expected at least one image, found none"):
        run("int8_ort", empty)


def test_empty_folder_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing: expected at least one image, found none"):
        run("int8_ort", save_folder(tmp_path / "nothing", []))


def test_missing_images_are_named(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.npz: no such file or folder"):
        run("int8_ort", str(tmp_path / "absent.npz"))


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"symetric": True}, "scheme 'int8_ort': unknown key 'symetric'", "did you mean 'symmetric'?"),
        ({"method": "min_max"}, "scheme 'int8_ort'.method: expected one of", "did you mean 'minmax'?"),
        ({"symmetric": 1}, "scheme 'int8_ort'.symmetric: expected bool, found 1", ""),
        ({"operators": "Conv"}, "scheme 'int8_ort'.operators: expected a list, found 'Conv'", ""),
    ],
)
def test_option_that_does_not_fit_is_refused(
    options: dict[str, Any], message: str, hint: str, run: Run, calibration: str
) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        run("int8_ort", calibration, options)

    assert caught.value.hint == hint


def test_option_where_there_are_none_is_refused(run: Run) -> None:
    with pytest.raises(RecipeError, match="scheme 'fp16': unknown key 'symmetric'"):
        run("fp16", None, {"symmetric": True})


def test_unknown_scheme_names_the_nearest(run: Run, calibration: str) -> None:
    with pytest.raises(UnknownNameError, match="no quantization scheme is called 'int8_nnfc'") as caught:
        run("int8_nnfc", calibration)

    assert caught.value.hint == "did you mean 'int8_nncf'?"


def test_graph_that_is_not_float32_is_refused(run: Run, lean: Artifact) -> None:
    with pytest.raises(InputError, match=r"model\.onnx: expected a float32 graph, found fp16") as caught:
        run("fp16", None, artifact=dataclasses.replace(lean, precision="fp16"))

    assert caught.value.hint == "give the float32 file it was made from"


def test_preprocess_that_does_not_fit_the_graph_is_refused(run: Run, lean: Artifact, tmp_path: Path) -> None:
    wide = str(save_images(tmp_path / "wide.npz", 3, size=24))
    other = dataclasses.replace(lean, preprocess=dataclasses.replace(lean.preprocess, width=24, height=24))

    with pytest.raises(InputError, match="expected one input N×1×24×24, found input"):
        run("int8_ort", wide, artifact=other)


def test_failure_leaves_nothing_in_the_store(run: Run, store: Store, tmp_path: Path) -> None:
    before = set(store.root.rglob("*"))

    with pytest.raises(InputError):
        run("int8_ort", save_folder(tmp_path / "mixed", [16, 20]))

    assert set(store.root.rglob("*")) == before


def test_second_run_takes_the_result_from_the_store(run: Run, calibration: str) -> None:
    first, had = run("int8_ort", calibration)

    second, has = run("int8_ort", calibration)

    assert (had, has) == (False, True)
    assert second == first


def test_other_calibration_images_are_another_result(run: Run, calibration: str) -> None:
    run("int8_ort", calibration)
    save_images(Path(calibration), 10, seed=5)

    _, had = run("int8_ort", calibration)

    assert not had


def test_other_options_are_another_result(run: Run, calibration: str) -> None:
    run("int8_ort", calibration)

    _, had = run("int8_ort", calibration, {"symmetric": True})

    assert not had


def test_calibration_images_do_not_matter_to_a_scheme_without_calibration(run: Run, calibration: str) -> None:
    run("fp32", None)

    _, had = run("fp32", calibration)

    assert had


def save_textures(folder: Path, n: int) -> Path:
    """Save `n` images as files."""
    with np.load(save_images(folder.parent / "textures.npz", n, seed=4)) as data:
        pixels = data["images"]
    folder.mkdir()
    for index, image in enumerate(pixels):
        Image.fromarray(image).save(folder / f"{index:02}.png")
    return folder


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8), "20 of 20 images are random noise"),
        (np.arange(20 * 256, dtype=np.uint8).reshape(20, 16, 16) * 0 + 9, "have one value in every pixel"),
        (np.eye(16, dtype=np.uint8)[None].repeat(20, axis=0), "no pixel of 20 images is larger than 1"),
        (np.eye(16, dtype=np.uint8)[None].repeat(20, axis=0) * 200, "19 of 20 images are copies of others"),
    ],
)
def test_images_that_would_give_wrong_ranges_are_refused(
    pixels: np.ndarray, message: str, run: Run, tmp_path: Path, store: Store
) -> None:
    np.savez(tmp_path / "planted.npz", images=pixels)
    before = set(store.root.rglob("*"))

    with pytest.raises(InputError, match=rf"planted\.npz: .*{message}") as caught:
        run("int8_ort", str(tmp_path / "planted.npz"))

    assert caught.value.hint and set(store.root.rglob("*")) == before


def test_a_scheme_that_only_looks_at_images_refuses_noise_too(run: Run, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 16, 16), np.uint8)
    np.savez(tmp_path / "noise.npz", images=pixels)

    with pytest.raises(InputError, match="random noise"):
        run("fp16", str(tmp_path / "noise.npz"))


def test_a_preprocessing_in_other_units_than_its_pixels_is_refused(run: Run, calibration: str, lean: Artifact) -> None:
    wrong = dataclasses.replace(TINY_PREPROCESS, mean=(123.675,), std=(58.395,))

    with pytest.raises(InputError, match=r"mean 123\.675 and std 58\.395 are for pixels up to 255") as caught:
        run("int8_ort", calibration, artifact=dataclasses.replace(lean, preprocess=wrong))

    assert caught.value.hint == "divide mean and std by 255, and export the checkpoint again"


def test_passport_says_what_is_to_be_known_of_the_images(run: Run, calibration: str) -> None:
    made, _ = run("int8_ort", calibration)

    assert (
        dict(made.made_by.rows)["calibration remarks"] == "10 images are few to see ranges in (a few hundred are usual)"
    )


def test_passport_has_no_remark_where_nothing_is_to_be_said(run: Run, tmp_path: Path) -> None:
    made, _ = run("int8_ort", str(save_images(tmp_path / "twenty.npz", 20)))

    assert not {"calibration remarks", "left out"} & dict(made.made_by.rows).keys()


def test_images_that_cannot_be_read_are_left_out_and_named(
    store: Store, connection: Connection, lean: Artifact, tmp_path: Path
) -> None:
    folder = save_textures(tmp_path / "images", 18)
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:99])
    heard: list[str] = []

    made, _ = quantize.run(
        lean,
        Variant(name="small", scheme="int8_ort"),
        Context(store=store, connection=connection, on_progress=lambda event: heard.append(event.text)),
        calibration=images_of(str(folder), skip_bad=True),
    )

    facts = dict(made.made_by.rows)
    assert facts["images"] == "17"
    assert facts["left out"].startswith(f"{folder}: 1 of 18 left out: 07.png: not a readable image: ")
    assert facts["left out"] in heard


def test_an_image_that_cannot_be_read_is_an_error_otherwise(run: Run, tmp_path: Path) -> None:
    folder = save_textures(tmp_path / "images", 18)
    (folder / "07.png").write_bytes((folder / "07.png").read_bytes()[:99])

    with pytest.raises(InputError, match=r"07\.png: not a readable image") as caught:
        run("int8_ort", str(folder))

    assert "--skip-bad" in caught.value.hint


def test_images_that_change_while_they_are_in_use_are_noticed(calibration: str, lean: Artifact, store: Store) -> None:
    job = {
        "scheme": "int8_ort", "options": {}, "source": str(store.path(lean)), "target": "", "calibration": calibration,
        "preprocess": vars(TINY_PREPROCESS), "digest": "another",
    }  # fmt: skip

    with pytest.raises(InputError, match=r"calibration\.npz: its images changed while they were in use"):
        WorkerProgram().operations["quantize"](job)


def kept(made: Artifact) -> str:
    """Say from which kept statistics a graph was made; empty if from none."""
    return dict(made.made_by.rows).get("statistics", "")


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"method": "mse"}, {"method": "entropy", "equalize": False}])
def test_another_option_of_the_same_graph_needs_no_second_pass(
    options: dict[str, Any], run: Run, calibration: str
) -> None:
    first, _ = run("int8_portable", calibration, {"method": "percentile"})

    second, had = run("int8_portable", calibration, options)

    assert (kept(first), had) == ("", False)
    assert kept(second).startswith("kept of 10 images observed for percentile 99.99 (")


@pytest.mark.slow
def test_weights_in_seven_bits_take_the_same_statistics(run: Run, calibration: str) -> None:
    run("int8_portable", calibration)

    made, _ = run("int8_portable", calibration, {"reduce_range": True})

    assert kept(made).startswith("kept of 10 images observed for mse (")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["pixel", "order", "preprocessing", "weights"])
def test_statistics_of_anything_else_are_not_taken(
    what: str, run: Run, calibration: str, lean: Artifact, store: Store
) -> None:
    run("int8_portable", calibration)
    artifact = lean
    with np.load(calibration) as data:
        arrays = dict(data)
    if what == "pixel":
        arrays["images"][3, 2, 2] ^= 1
    if what == "order":
        arrays["images"] = arrays["images"][::-1]
    if what == "preprocessing":
        artifact = dataclasses.replace(lean, preprocess=dataclasses.replace(lean.preprocess, mean=(0.51,)))
    if what == "weights":
        model = ir.serde.serialize_model(tiny_graphs.simplified_model())
        name = next(tensor.name for tensor in model.graph.initializer if len(tensor.dims) == 4)
        artifact = hand_made(store, scaled(model, name, 1.01), lean, "changed")
    np.savez_compressed(calibration, **arrays)

    made, _ = run("int8_portable", calibration, {"reduce_range": True}, artifact)

    assert kept(made) == ""


@pytest.mark.slow
def test_graph_from_kept_statistics_is_the_same_to_the_byte(run: Run, calibration: str, store: Store) -> None:
    run("int8_portable", calibration, {"reduce_range": True})
    from_kept, _ = run("int8_portable", calibration)
    shutil.rmtree(store.root / "calibrate")
    shutil.rmtree(store.root / "quantize")

    observed, _ = run("int8_portable", calibration)

    assert kept(from_kept)
    assert not kept(observed)
    assert from_kept.sha256 == observed.sha256


@pytest.mark.slow
def test_passport_and_screen_say_what_was_found_about_the_ranges(
    store: Store, connection: Connection, lean: Artifact, tmp_path: Path
) -> None:
    images = str(save_images(tmp_path / "many.npz", 70, seed=1))
    events: list[ProgressEvent] = []
    variant = Variant(name="small", scheme="int8_portable", options={"method": "mse"})

    with links.connect_device(links.LOCAL) as local:
        made, _ = quantize.run(
            lean,
            variant,
            Context(store=store, connection=local, on_progress=events.append),
            calibration=images_of(images),
        )

    assert "settled after " in dict(made.made_by.rows)["ranges"]
    assert dict(made.made_by.rows)["ranges"].startswith("mse, ")
    texts = [event.text for event in events]
    assert any(text.startswith("ranges (mse) of 70 images: about ") for text in texts)
    assert any("settled after " in text for text in texts)
    assert events[-1].total in (0, 70)
