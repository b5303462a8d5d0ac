"""Options as they reach a builder: TensorRT-RTX's own config is read back; TensorRT's older one is stood in for."""

from types import SimpleNamespace
from typing import Any

import pytest

from deploy_kit.base.errors import BuildError, DeviceError
from deploy_kit.base.lazy import install_line, present
from deploy_kit.engines import tensorrt
from deploy_kit.engines._nvidia import build, network
from deploy_kit.engines._nvidia.options import TensorRtOptions

with_rtx = pytest.mark.skipif(not present("tensorrt_rtx"), reason=install_line("tensorrt_rtx"))


@pytest.fixture
def real() -> tuple[Any, Any]:
    """TensorRT-RTX and one of its builder configs."""
    import tensorrt_rtx as trt

    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    return trt, builder.create_builder_config()


@with_rtx
@pytest.mark.parametrize("mib", [1, 512])
def test_the_workspace_is_bounded_in_mib(mib: int, real: tuple[Any, Any]) -> None:
    trt, config = real

    build.configure_builder(trt, config, TensorRtOptions(workspace_mib=mib))

    assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == mib * 2**20


@with_rtx
@pytest.mark.parametrize(
    ("options", "flag", "on"),
    [
        (TensorRtOptions(), "TF32", True),
        (TensorRtOptions(no_tf32=True), "TF32", False),
        (TensorRtOptions(refit=True), "REFIT", True),
        (TensorRtOptions(strip_weights=True), "STRIP_PLAN", True),
        (TensorRtOptions(version_compatible=True), "VERSION_COMPATIBLE", True),
        (TensorRtOptions(), "VERSION_COMPATIBLE", False),
    ],
)
def test_switches_reach_the_builder(options: TensorRtOptions, flag: str, on: bool, real: tuple[Any, Any]) -> None:
    trt, config = real

    build.configure_builder(trt, config, options)

    assert config.get_flag(getattr(trt.BuilderFlag, flag)) is on


@with_rtx
def test_level_and_verbosity_reach_the_builder(real: tuple[Any, Any]) -> None:
    trt, config = real

    build.configure_builder(
        trt, config, TensorRtOptions(builder_optimization_level=5, profiling_verbosity="layer_names_only")
    )

    assert config.builder_optimization_level == 5
    assert config.profiling_verbosity == trt.ProfilingVerbosity.LAYER_NAMES_ONLY


class OldConfig:
    """A builder config of TensorRT 10.3, as far as these options reach."""

    def __init__(self) -> None:
        self.flags: list[str] = []

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def can_run_on_DLA(self, layer: Any) -> bool:  # TensorRT's name
        return layer.type.name == "CONVOLUTION"


def old_tensorrt() -> Any:
    names = ("VERSION_COMPATIBLE", "REFIT", "STRIP_PLAN", "TF32", "GPU_FALLBACK")
    return SimpleNamespace(
        __version__="10.3.0",
        BuilderFlag=SimpleNamespace(**{name: name for name in names}),
        ProfilingVerbosity=SimpleNamespace(DETAILED="detailed"),
        HardwareCompatibilityLevel=SimpleNamespace(NONE="none", AMPERE_PLUS="ampere+"),
        DeviceType=SimpleNamespace(DLA="dla"),
        LayerType=SimpleNamespace(CONSTANT=SimpleNamespace(name="CONSTANT")),
        Logger=SimpleNamespace(ERROR=0),
    )


def test_a_hardware_level_reaches_the_builder() -> None:
    config = OldConfig()

    build.configure_builder(old_tensorrt(), config, TensorRtOptions(hardware_compatibility_level="ampere+"))

    assert config.hardware_compatibility_level == "ampere+"


def test_a_hardware_level_that_came_later_is_refused_by_version() -> None:
    with pytest.raises(BuildError) as caught:
        build.configure_builder(
            old_tensorrt(), OldConfig(), TensorRtOptions(hardware_compatibility_level="sameComputeCapability")
        )

    assert str(caught.value) == "TensorRT 10.3.0 has no hardware compatibility level 'sameComputeCapability'"
    assert caught.value.hint == "use 'ampere+', or a later TensorRT"


def test_the_accelerator_is_chosen_with_the_gpu_to_fall_back_to() -> None:
    config = OldConfig()

    build.configure_builder(old_tensorrt(), config, TensorRtOptions(use_dla_core=1))

    assert (config.default_device_type, config.DLA_core, config.flags) == ("dla", 1, ["GPU_FALLBACK"])


def test_layers_that_the_accelerator_cannot_run_are_told() -> None:
    kinds = ("CONVOLUTION", "CONSTANT", "CONVOLUTION", "CONCATENATION", "SCALE")
    trt = old_tensorrt()
    layers = [
        SimpleNamespace(type=trt.LayerType.CONSTANT if k == "CONSTANT" else SimpleNamespace(name=k)) for k in kinds
    ]
    parsed = SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)

    said = build._dla_share(trt, OldConfig(), parsed, TensorRtOptions(use_dla_core=0))

    assert said == "DLA core 0 can run 2 of 4 layers; to the GPU: concatenation, scale"


def test_an_accelerator_that_is_not_there_is_refused_before_the_build() -> None:
    trt = old_tensorrt()
    trt.Builder = lambda logger: SimpleNamespace(num_DLA_cores=0)
    trt.Logger = type("Logger", (), {"ERROR": 0, "__init__": lambda self, severity: None})

    with pytest.raises(DeviceError) as caught:
        tensorrt._configure(trt, None, TensorRtOptions(use_dla_core=0))

    assert str(caught.value) == ("engine 'tensorrt'.use_dla_core: this machine has 0 DLA cores for TensorRT 10.3.0")
    assert "TensorRT 10.7 was the last with DLA" in caught.value.hint


@pytest.mark.parametrize(("flags", "wanted"), [({"STRONGLY_TYPED": 1}, 2), ({}, 0)])
def test_every_network_is_strongly_typed(flags: dict[str, int], wanted: int, tmp_path: Any) -> None:
    asked: list[int] = []
    (tmp_path / "x.onnx").write_bytes(b"graph")
    trt = SimpleNamespace(
        NetworkDefinitionCreationFlag=SimpleNamespace(**flags),
        OnnxParser=lambda network, logger: SimpleNamespace(parse_from_file=lambda path: True),
    )

    network.parse_network(
        trt, tensorrt._FLAVOUR, SimpleNamespace(create_network=asked.append), None, tmp_path / "x.onnx"
    )

    assert asked == [wanted]
