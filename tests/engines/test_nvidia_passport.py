"""The passport beside a plan: what it says, and that a plan which does not fit is refused by it before it is loaded."""

import json
import shutil
from pathlib import Path

import pytest
from tiny_densenet import TINY_PREPROCESS

from deploy_kit.base import whole_files
from deploy_kit.base.errors import BuildError, DeviceError
from deploy_kit.base.whole_files import sha256_of
from deploy_kit.engines import _cuda, tensorrt_rtx
from deploy_kit.engines._nvidia import passport
from deploy_kit.engines._nvidia.options import TensorRtOptions
from deploy_kit.records import codec
from deploy_kit.records.artifacts import Artifact, BuiltFor

pytest_plugins = ["tiny_line"]

GPU = _cuda.Gpu(name="NVIDIA H100", capability="9.0", driver="580.95, CUDA 13.0")


@pytest.fixture
def plan(small_plan: Path, tmp_path: Path) -> Path:
    for file in whole_files.parts_of(small_plan):
        shutil.copyfile(file, tmp_path / file.name)
    return tmp_path / small_plan.name


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_cuda, "device_or_none", lambda: GPU)


def rewritten(plan: Path, **changes: object) -> BuiltFor:
    """Change what the passport says of where the plan was built."""
    path = passport.passport_path(plan)
    data = json.loads(path.read_text())
    data["built"] |= changes
    path.write_text(json.dumps(data))
    return codec.from_json(BuiltFor, data["built"])


def opening(plan: Path) -> Exception:
    with pytest.raises((BuildError, DeviceError)) as caught:
        tensorrt_rtx.open_session(plan, TensorRtOptions())
    return caught.value


def test_it_says_from_what_and_for_what_the_plan_was_built(plan: Path, small_plan: Path) -> None:
    import tensorrt_rtx as trt

    read = passport.read_plan_passport(plan)

    assert read is not None
    built = read[0]
    assert (built.package, built.version, built.capabilities) == ("tensorrt_rtx", trt.__version__, ("8.9",))
    assert built.engine_sha256 == sha256_of(plan)
    assert built.onnx_sha256 == sha256_of(small_plan.parent / "small.onnx")
    assert json.loads(built.options)["compute_capabilities"] == ["8.9"]


def test_it_holds_the_proof(plan: Path) -> None:
    read = passport.read_plan_passport(plan)

    assert read is not None
    assert ("Conv", "fp32", 1) in read[1].counts
    assert read[1].bindings == (("input 'input'", "fp32"), ("output 'logits'", "fp32"))


def test_it_is_sent_with_its_plan(plan: Path) -> None:
    assert whole_files.parts_of(plan) == [plan, passport.passport_path(plan)]


def test_a_record_of_the_store_is_read_as_a_passport_too(plan: Path) -> None:
    read = passport.read_plan_passport(plan)
    assert read is not None
    record = Artifact(
        kind="engine", name="x", path="x", sha256="0", size_bytes=1, precision="fp32", inputs=(), outputs=(),
        preprocess=TINY_PREPROCESS, stage="build", parent="0", proof=read[1], built=read[0],
    )  # fmt: skip
    passport.passport_path(plan).write_text(codec.canonical_json(record))

    assert passport.read_plan_passport(plan) == read


def test_a_plan_of_another_version_is_refused_in_words(plan: Path) -> None:
    import tensorrt_rtx as trt

    rewritten(plan, version="1.2.0.54")

    error = opening(plan)

    assert str(error) == (
        f"{plan}: built with tensorrt_rtx 1.2.0.54 for sm_89; this machine has tensorrt_rtx {trt.__version__}"
    )
    assert (error.hint, error.exit_code) == ("build it again: deploykit build --engine tensorrt_rtx", 4)


def test_a_plan_of_another_gpu_is_refused_with_the_command_that_rebuilds(plan: Path, with_gpu: None) -> None:
    rewritten(plan, version="10.3.0", package="tensorrt", capabilities=["8.7"])

    error = opening(plan)

    assert f"{plan}: built with tensorrt 10.3.0 for sm_87; this machine has tensorrt_rtx " in str(error)
    assert str(error).endswith(" / sm_90")
    assert error.hint == "build it again: deploykit build --engine tensorrt_rtx --compute-capability 9.0"


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(("capabilities", "compatible"), [(("8.6", "9.0"), ()), (("8.0",), ("ampere+",))])
def test_a_plan_that_fits_this_gpu_is_let_through(
    capabilities: tuple[str, ...], compatible: tuple[str, ...], plan: Path
) -> None:
    import tensorrt_rtx as trt

    rewritten(plan, capabilities=capabilities, compatible=compatible)

    passport.verify_plan(plan, "tensorrt_rtx", trt.__version__)


@pytest.mark.usefixtures("with_gpu")
def test_ampere_and_later_does_not_cover_turing(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = rewritten(plan, compatible=["ampere+"])

    assert not passport.fits_capability(built, "7.5")
    assert passport.fits_capability(built, "12.0")


def test_a_version_compatible_plan_is_let_through_to_a_later_version(plan: Path) -> None:
    rewritten(plan, compatible=["version"], version="1.0.0")

    passport.verify_plan(plan, "tensorrt_rtx", "1.99.0")


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: data[:-1] + bytes([data[-1] ^ 1])]
)
def test_a_plan_cut_off_or_changed_is_named(damage: object, plan: Path) -> None:
    expected = sha256_of(plan)
    plan.write_bytes(damage(plan.read_bytes()))

    error = opening(plan)

    assert str(error) == (
        f"{plan}: changed or cut off since it was built: expected sha256 {expected[:12]}…, "
        f"found {sha256_of(plan)[:12]}…"
    )
    assert (error.hint, error.exit_code) == ("build it again: deploykit build --engine tensorrt_rtx", 5)


def test_a_damaged_plan_is_not_proved_from_its_old_passport(plan: Path) -> None:
    plan.write_bytes(b"vtrt" + bytes(64))

    with pytest.raises(BuildError, match="changed or cut off since it was built"):
        tensorrt_rtx.prove_precision(plan, TensorRtOptions())


@pytest.mark.parametrize("text", ["{", "{}", '{"built": {"package": 3}, "proof": {}}', "[]"])
def test_a_passport_that_cannot_be_read_is_named(text: str, plan: Path) -> None:
    passport.passport_path(plan).write_text(text)

    error = opening(plan)

    assert str(error).startswith(f"{passport.passport_path(plan)}: cannot be read as a passport: ")
    assert error.hint == "build the plan again"


def test_a_plan_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = opening(tmp_path / "model.rtx.plan")

    assert (str(error), error.hint) == (f"{tmp_path / 'model.rtx.plan'}: no such file", "build it again")


@pytest.mark.skipif(not _cuda.why_no_cuda(), reason="there is an NVIDIA GPU on this machine")
def test_a_plan_without_a_passport_is_left_to_the_library(plan: Path) -> None:
    passport.passport_path(plan).unlink()

    assert str(opening(plan)) == f"{plan}: cannot run: no NVIDIA GPU on this machine"
    assert tensorrt_rtx.prove_precision(plan, TensorRtOptions()).share("fp32", of="Conv") == 1


def test_a_version_compatible_plan_of_a_later_version_is_refused(plan: Path) -> None:
    rewritten(plan, compatible=["version"], version="1.99.0")

    with pytest.raises(DeviceError, match=r"built with tensorrt_rtx 1\.99\.0 for sm_89; this machine has"):
        passport.verify_plan(plan, "tensorrt_rtx", "1.7.1")
