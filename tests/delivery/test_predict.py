"""`predict.py` of a bundle and `deploy_kit.load`: both prepare an image as the check does, bit for bit."""

import hashlib
import json
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_making import edit_manifest
from command_line import deploykit
from PIL import Image

import deploy_kit
from deploy_kit.accuracy.scores import confidence
from deploy_kit.base.errors import InputError
from deploy_kit.delivery.runtimes import FILES
from deploy_kit.images import files, to_tensors
from deploy_kit.records.artifacts import Preprocess

pytest_plugins = ["tiny_line", "tiny_bundles"]

GRAY = Preprocess(height=16, width=16, color="gray", mean=(0.5,), std=(0.25,))
RGB = Preprocess(height=16, width=20, color="rgb", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1))
BGR = Preprocess(
    height=24, width=16, color="bgr", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.1), resize=31, interpolation="bicubic"
)


@pytest.fixture(scope="module")
def classifier() -> Any:
    """Give an object with the methods of a bundle's program, and no engine."""
    cls = runpy.run_path(str(FILES / "predict.py"))["Classifier"]
    return cls.__new__(cls)


def prepared(classifier: Any, image: Any, preprocess: Preprocess, orientation: str | None = None) -> np.ndarray:
    classifier.manifest, classifier.orientation = {"preprocess": json.loads(json.dumps(vars(preprocess)))}, orientation
    return np.asarray(classifier.prepare(image))


@pytest.mark.parametrize(
    "preprocess",
    [GRAY, RGB, BGR, *(replace(one, input_pixels=True) for one in (GRAY, RGB, BGR))],
    ids=["gray", "rgb", "bgr resized", "gray pixels", "rgb pixels", "bgr pixels resized"],
)
@pytest.mark.parametrize("mode", ["L", "LA", "1", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("side", [(20, 16), (37, 53), (53, 37)])
def test_it_prepares_as_the_check_does(
    classifier: Any, tmp_path: Path, preprocess: Preprocess, mode: str, side: tuple[int, int]
) -> None:
    size = side if preprocess.resize is not None else (preprocess.width, preprocess.height)
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    file = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(noise).convert(mode).save(file)

    try:
        wanted = to_tensors(files.decode(file), preprocess)
    except InputError as error:
        with pytest.raises(ValueError, match=str(error)[:24]):
            prepared(classifier, str(file), preprocess)
        return
    found = prepared(classifier, str(file), preprocess)

    assert (found.dtype, found.tobytes()) == (wanted.dtype, wanted.tobytes())
    with Image.open(file) as opened:
        assert prepared(classifier, opened, preprocess).tobytes() == wanted.tobytes()


def test_what_does_not_fit_is_refused(classifier: Any, tmp_path: Path) -> None:
    Image.new("I;16", (16, 16)).save(tmp_path / "deep.png")
    (tmp_path / "page.ps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n")
    Image.new("L", (16, 16)).save(tmp_path / "two.gif", save_all=True, append_images=[Image.new("L", (16, 16), 9)])
    for image, said in (
        (np.zeros((16, 16), np.float32), "expected uint8"),
        (np.zeros((16, 16, 4), np.uint8), "expected uint8"),
        (np.zeros((17, 16), np.uint8), "expected 16×16 px"),
        (np.zeros((16, 16, 3), np.uint8), "expected a gray image"),
        (tmp_path / "deep.png", "expected 8 bits a channel"),
        (tmp_path / "two.gif", "expected one image, found several frames"),
        (tmp_path / "page.ps.png", "cannot identify image"),
    ):
        with pytest.raises((ValueError, OSError), match=said):
            prepared(classifier, image, GRAY)


def test_a_turned_file_is_read_as_somebody_said(classifier: Any, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)

    with pytest.raises(ValueError, match="EXIF orientation"):
        prepared(classifier, str(tmp_path / "a.png"), GRAY)
    for orientation in ("stored", "upright"):
        wanted = to_tensors(files.decode(tmp_path / "a.png", upright=orientation == "upright"), GRAY)
        assert prepared(classifier, str(tmp_path / "a.png"), GRAY, orientation).tobytes() == wanted.tobytes()


@pytest.mark.parametrize("scores", ["softmax", "sigmoid", "none"])
def test_scores_are_those_of_the_package(classifier: Any, scores: str) -> None:
    logits = np.random.default_rng(0).normal(0, 30, (5, 7)).astype(np.float32)
    classifier.manifest = {"scores": scores}

    wanted = confidence.to_probabilities(logits, "sigmoid" if scores == "none" else "logits", each=scores == "sigmoid")

    np.testing.assert_allclose(classifier.scores(logits), wanted, rtol=1e-12)


@pytest.mark.slow
def test_load_and_the_program_give_the_same_names_and_scores(bundle: Path, tmp_path: Path) -> None:
    names = ["T-shirt/top", 'Bür"ste', "c", "d"]
    edit_manifest(bundle, lambda m: m.update(classes=names))
    with np.load(bundle / "golden.npz") as data:
        images, logits = data["images"], data["logits"]
    Image.fromarray(images[0]).save(tmp_path / "a.png")

    said = subprocess.run(
        [sys.executable, bundle / "predict.py", tmp_path / "a.png", "--top", "2"], capture_output=True, text=True
    )
    with deploy_kit.load(bundle) as predictor:
        one = predictor.predict(tmp_path / "a.png", top=2)
        several = predictor.predict(images)
        assert predictor.predict([tmp_path / "a.png", Image.fromarray(images[0])], top=2) == (one, one)
        with pytest.raises(InputError, match="at least one image"):
            predictor.predict([])
        with pytest.raises(InputError, match="expected pixels uint8"):
            predictor.predict(np.zeros((16, 16)))

    assert said.returncode == 0, said.stderr
    first = names[logits[0].argmax()]
    assert said.stdout.startswith(f"{tmp_path / 'a.png'}: {first} {100 * one.scores[0]:.2f} %, ")
    assert "ms since the start" in said.stderr
    assert one.names[0] == first
    assert len(one.names) == 2
    assert [found.indices[0] for found in several] == list(logits.argmax(axis=1))
    assert sum(several[0].scores) == pytest.approx(1)
    assert sorted(path.name for path in bundle.iterdir() if path.name == "__pycache__") == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_bundle_that_takes_pixels_answers_as_the_one_that_normalizes(
    packed: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    bundle, floats = packed("fp32", engine, pixels=True), packed("fp32", engine)
    with np.load(bundle / "golden.npz") as data:
        images, logits = data["images"], data["logits"]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    manifest = json.loads((bundle / "manifest.json").read_text())

    said = [
        subprocess.run([sys.executable, *command], capture_output=True, text=True)
        for command in ((bundle / "predict.py", tmp_path / "a.png"), (bundle / "verify.py",))
    ]
    with deploy_kit.load(bundle) as one, deploy_kit.load(floats) as other:
        np.testing.assert_allclose(one.scores(images), other.scores(images), rtol=1e-4)
        assert one.predict(tmp_path / "a.png").indices[0] == logits[0].argmax()

    assert manifest["inputs"][0] == {"name": "input", "dtype": "uint8", "shape": [1, 16, 16, 1]}
    assert [done.returncode for done in said] == [0, 0], [done.stdout + done.stderr for done in said]
    assert said[0].stdout.startswith(f"{tmp_path / 'a.png'}: {logits[0].argmax()} ")
    assert "8 images, 0 of the largest logit off" in said[1].stdout
    assert deploykit("verify", bundle).code == 0
    card = (bundle / "README.md").read_text()
    assert "the engine computes it, and takes the pixels in RGB order" in card
    assert "it takes frames, uint8 with channels last" in card


def test_load_refuses_what_was_changed(bundle: Path) -> None:
    (bundle / "predict.py").write_text("")

    with pytest.raises(InputError, match=r"predict\.py: expected .* bytes, found 0"):
        deploy_kit.load(bundle)


def test_a_file_that_is_no_image_ends_the_program_with_a_sentence(packed: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")

    said = subprocess.run([sys.executable, packed() / "predict.py", tmp_path / "a.png"], capture_output=True, text=True)

    assert said.returncode == 2
    assert "cannot identify image file" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "code", "said"),
    [
        (lambda bundle: (bundle / "model.onnx").unlink(), 1, "FAILED  model.onnx: missing\n"),
        (lambda bundle: (bundle / "model.onnx").write_text("no graph"), 1, "FAILED  model.onnx: changed since it was"),
        (lambda bundle: (bundle / "manifest.json").write_text("{"), 2, "FAILED  not a bundle: "),
        (lambda bundle: edit_manifest(bundle, lambda m: m["engine"]["options"].clear()), 1, "not computed: 'threads'"),
    ],
    ids=["no engine", "an engine that is no ONNX", "no manifest", "no options"],
)
def test_a_bundle_that_cannot_be_loaded_is_refused_as_verify_does(
    bundle: Path, tmp_path: Path, spoil: Callable[[Path], object], code: int, said: str
) -> None:
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "a.png")
    spoil(bundle)

    ended = [
        subprocess.run([sys.executable, bundle / program, *more], capture_output=True, text=True)
        for program, more in (("predict.py", [tmp_path / "a.png"]), ("verify.py", []))
    ]

    assert [one.returncode for one in ended] == [code, code]
    assert said in ended[0].stderr and said in ended[1].stdout
    assert "Traceback" not in ended[0].stderr + ended[1].stderr


@pytest.mark.slow
def test_without_pillow_the_program_says_what_to_install(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(
        "import runpy, sys\nsys.modules['PIL'] = None\n"
        f"sys.argv = ['predict.py', 'a.png']\nrunpy.run_path({str(bundle / 'predict.py')!r}, run_name='__main__')\n"
    )

    said = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True)

    assert said.returncode == 3
    assert "pip install pillow" in said.stderr and "Traceback" not in said.stderr


def test_the_program_is_short() -> None:
    assert len((FILES / "predict.py").read_text().splitlines()) < 160


@pytest.mark.slow
def test_modules_beside_the_programs_are_not_imported(bundle: Path) -> None:
    for name in ("numpy.py", "json.py", "onnxruntime.py", "argparse.py"):
        (bundle / name).write_text("raise SystemExit('planted')")

    predicted = subprocess.run(
        [sys.executable, bundle / "predict.py", "a.png"], capture_output=True, text=True, cwd=bundle
    )
    verified = subprocess.run([sys.executable, bundle / "verify.py"], capture_output=True, text=True, cwd=bundle)

    assert "planted" not in predicted.stderr + verified.stdout + verified.stderr
    assert verified.returncode == 1
    assert "FAILED  numpy.py: not of the bundle" in verified.stdout


@pytest.mark.slow
def test_foreign_folders_are_summed_up_by_the_bundles_own_verification(bundle: Path) -> None:
    for name in ("env/lib/site.py", "env/pyvenv.cfg", "cpp/build/a.o", "cpp/build/CMakeFiles/b.o"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).touch()
    (bundle / "env" / "python").symlink_to(sys.executable)

    verified = subprocess.run([sys.executable, bundle / "verify.py"], capture_output=True, text=True)

    assert verified.returncode == 1
    assert verified.stdout.splitlines() == [
        "FAILED  cpp/build/: 2 files that are not of the bundle",
        "FAILED  env/: a virtual environment of 3 files, not of the bundle: make it outside of this folder",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_bundles_own_verification_says_what_the_command_says(
    packed: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    bundle = Path(shutil.copytree(packed("int8", engine), tmp_path / "bundle"))

    def verify() -> tuple[int, str]:
        done = subprocess.run([sys.executable, bundle / "verify.py"], capture_output=True, text=True)
        assert done.stderr == ""
        return done.returncode, done.stdout

    code, said = verify()
    assert (code, "8 images, 0 of the largest logit off" in said) == (0, True)

    whole = (bundle / "manifest.json").read_bytes()
    edit_manifest(bundle, lambda m: m["engine"].update(minimum="9999.1"))
    code, said = verify()
    assert (code, "the engine needs 9999.1 or later" in said) == (4, True)
    edit_manifest(bundle, lambda m: m["engine"].update(package="no_such_engine"))
    code, said = verify()
    assert (code, "pip install 'no_such_engine>=9999.1'" in said) == (3, True)
    (bundle / "manifest.json").write_text("{}")
    assert verify()[0] == 2

    (bundle / "manifest.json").write_bytes(whole)
    file = bundle / ("model.onnx" if engine == "onnxruntime" else "model.bin")
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    code, said = verify()
    assert (code, f"{file.name}: changed since it was packed" in said) == (1, True)
    file.unlink()
    assert f"{file.name}: missing" in verify()[1]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_outputs_that_differ_are_a_no_of_the_bundle_itself(
    packed: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    bundle = Path(shutil.copytree(packed("fp32", engine), tmp_path / "bundle"))
    file = bundle / "golden.npz"
    with np.load(file) as data:
        images, logits = data["images"], data["logits"]
    np.savez(file, images=images, logits=logits + 0.003 * np.abs(logits).max())

    def reseal(manifest: dict[str, Any]) -> None:
        entry = next(entry for entry in manifest["files"] if entry["path"] == "golden.npz")
        entry.update(sha256=hashlib.sha256(file.read_bytes()).hexdigest(), size=file.stat().st_size)

    edit_manifest(bundle, reseal)
    done = subprocess.run([sys.executable, bundle / "verify.py"], capture_output=True, text=True)

    assert done.returncode == 1
    assert "FAILED  golden outputs: 8 images, 0.003 of the largest logit off, at most 0.002" in done.stdout
    assert deploykit("verify", bundle).code == 1
