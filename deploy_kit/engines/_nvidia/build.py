"""Build of a plan with its proof and its passport; the files are written completely or not at all."""

import functools
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy_kit.base.errors import BuildError
from deploy_kit.base.progress import ProgressCallback, ProgressEvent
from deploy_kit.base.whole_files import sha256_of, write_whole
from deploy_kit.engines import _cuda
from deploy_kit.engines._nvidia import (
    Flavour,
    LibraryMessages,
    flavour_module,
    network,
    passport,
    proof,
    releases_library_objects,
    verify_options,
)
from deploy_kit.engines._nvidia.options import TensorRtOptions
from deploy_kit.engines._nvidia.timing_cache import TimingCache
from deploy_kit.records import codec
from deploy_kit.records.artifacts import BuiltFor

if TYPE_CHECKING:
    import tensorrt

_LEVELS = {"ampere+": "AMPERE_PLUS", "sameComputeCapability": "SAME_COMPUTE_CAPABILITY"}


@releases_library_objects
def build_plan(
    flavour: Flavour, onnx_file: Path, plan_file: Path, options: TensorRtOptions, on_progress: ProgressCallback
) -> BuiltFor:
    """Build a plan, prove its precision, and write both: ``model.plan`` and ``model.plan.passport.json``.

    Args:
        flavour: Library that builds the plan.
        onnx_file: Typed ONNX graph.
        plan_file: File to write.
        options: Build options.
        on_progress: Called with the builder's progress events.

    Returns:
        The plan's passport.

    Raises:
        RecipeError: The flavour does not support an option.
        BuildError: The parser refuses a node, or the builder fails; the message contains the library's messages.
        StoreError: The plan cannot be written.
    """
    trt = flavour_module(flavour)
    verify_options(flavour, options)
    capabilities = flavour.capabilities(trt, options)
    messages = LibraryMessages(trt)
    builder: tensorrt.Builder = trt.Builder(messages.logger)
    parsed = network.parse_network(trt, flavour, builder, messages.logger, onnx_file)
    config = builder.create_builder_config()
    configure_builder(trt, config, options)
    flavour.configure(trt, config, options)
    network.add_profiles(builder, parsed, config, options, onnx_file)
    dla = _dla_share(trt, config, parsed, options)
    cache = TimingCache(flavour.package, trt.__version__) if flavour.timed and options.timing_cache else None
    if cache:
        cache.hand_to(config)
    monitor = _monitor_class(trt)(on_progress)
    config.progress_monitor = monitor
    serialized = builder.build_serialized_network(parsed, config)
    if monitor.stopped:
        raise BuildError(f"{onnx_file}: the build was canceled")
    if serialized is None:
        raise _build_error(flavour, onnx_file, messages)
    plan = bytes(serialized)
    proven = proof.prove_plan(flavour, plan, network.count_layers(parsed), network.list_bindings(parsed), dla)
    here = _cuda.device_or_none()
    write_whole(plan_file, plan)
    built = BuiltFor(
        package=flavour.package,
        version=str(trt.__version__),
        capabilities=capabilities,
        compatible=_compatible(options),
        gpu=here.name if here else "",
        driver=here.driver if here else "",
        host=f"{platform.system()} {platform.release()} {platform.machine()}",
        onnx_sha256=sha256_of(onnx_file),
        engine_sha256=sha256_of(plan_file),
        options=codec.canonical_json(options),
        timing_cache=cache.keep(config) if cache else "",
    )
    passport.write_plan_passport(plan_file, built, proven)
    return built


def configure_builder(trt: Any, config: "tensorrt.IBuilderConfig", options: TensorRtOptions) -> None:
    """Set the options that both flavours have under the same name; `verify_options` has refused what one lacks."""
    flag = trt.BuilderFlag
    config.builder_optimization_level = options.builder_optimization_level
    config.profiling_verbosity = getattr(trt.ProfilingVerbosity, options.profiling_verbosity.upper())
    if options.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib << 20)
    switches = {
        "VERSION_COMPATIBLE": options.version_compatible,
        "REFIT": options.refit,
        "STRIP_PLAN": options.strip_weights,
    }
    for name in (name for name, on in switches.items() if on):
        config.set_flag(getattr(flag, name))
    if options.no_tf32:
        config.clear_flag(flag.TF32)
    if options.hardware_compatibility_level != "none":
        level = _LEVELS[options.hardware_compatibility_level]
        if not hasattr(trt.HardwareCompatibilityLevel, level):
            raise BuildError(
                f"TensorRT {trt.__version__} has no hardware compatibility level "
                f"'{options.hardware_compatibility_level}'",
                hint="use 'ampere+', or a later TensorRT",
            )
        config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
    if options.use_dla_core is not None:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = options.use_dla_core
        config.set_flag(flag.GPU_FALLBACK)


def _dla_share(trt: Any, config: Any, parsed: Any, options: TensorRtOptions) -> str:
    """Describe how many layers the DLA can run, and which kinds fall back to the GPU; empty without a DLA."""
    if options.use_dla_core is None:
        return ""
    layers = [parsed.get_layer(index) for index in range(parsed.num_layers)]
    layers = [layer for layer in layers if layer.type != trt.LayerType.CONSTANT]
    fallback = [layer.type.name.lower() for layer in layers if not config.can_run_on_DLA(layer)]
    kinds = ", ".join(sorted(set(fallback))) or "none"
    able = f"{len(layers) - len(fallback)} of {len(layers)} layers"
    return f"DLA core {options.use_dla_core} can run {able}; to the GPU: {kinds}"


def _compatible(options: TensorRtOptions) -> tuple[str, ...]:
    level = options.hardware_compatibility_level
    return (*(["version"] if options.version_compatible else []), *([level] if level != "none" else []))


def _build_error(flavour: Flavour, onnx_file: Path, messages: LibraryMessages) -> BuildError:
    text = str(messages)
    hint = ""
    if "out of memory" in text.lower() or "OutOfMemory" in text:
        hint = "close other programs, or bound its scratch memory: -o workspace_mib=512"
    return BuildError(f"{onnx_file}: {flavour.package} built nothing:\n{text}", hint=hint)


@functools.cache
def _monitor_class(trt: Any) -> Any:
    class BuildMonitor(trt.IProgressMonitor):  # type: ignore[misc]  # known only once its library is loaded
        """Reports the outermost phases; a callback that fails because its pipe is closed cancels the build."""

        def __init__(self, on_progress: ProgressCallback) -> None:
            trt.IProgressMonitor.__init__(self)
            self._on_progress, self._steps = on_progress, dict[str, tuple[int, int]]()
            self.stopped = False

        def phase_start(self, phase: str, parent: str | None, n_steps: int) -> None:
            depth = self._steps[parent][1] + 1 if parent in self._steps else 0
            self._steps[phase] = (n_steps, depth)
            self._report(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._report(phase, step + 1)
            return not self.stopped

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

        def _report(self, phase: str, done: int) -> None:
            total, depth = self._steps.get(phase, (0, 0))
            if depth > 1 or self.stopped:
                return
            try:
                self._on_progress(ProgressEvent(stage="build", text=phase, done=done, total=total))
            except (OSError, ValueError):  # the pipe is closed: nobody waits for the build any more
                self.stopped = True

    return BuildMonitor
