"""Options of both NVIDIA engines, under the names of `trtexec`."""

from dataclasses import dataclass
from typing import Literal

from deploy_kit.base.errors import RecipeError

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class TensorRtOptions:
    """Options of a recipe's build entry.

    Attributes:
        min_shapes: Smallest shapes of open inputs, one entry for each optimization profile, e.g.
            ``input:1x3x224x224``; several inputs are separated by commas. By default the same as `opt_shapes`.
        opt_shapes: Shapes that the builder tunes for. By default the same as `max_shapes`.
        max_shapes: Largest shapes. By default the same as `opt_shapes`.
        workspace_mib: Largest scratch memory of a layer in MiB; 0 keeps the default, all memory of the device.
        builder_optimization_level: How long the builder searches, 0..5; 3 is the default.
        timing_cache: Keep the builder's measurements for the next build, by version, GPU and driver.
        version_compatible: Let later versions of the library load the plan.
        hardware_compatibility_level: Other GPUs that may load the plan.
        refit: Let weights be exchanged later.
        strip_weights: Leave out weights that refitting can restore.
        use_dla_core: Core of the deep learning accelerator to run on; layers that it cannot run fall back to the GPU.
        no_tf32: Keep float32 products in float32; TensorRT rounds them to TF32 by default.
        profiling_verbosity: How much the plan describes its layers; the precision proof on a GPU needs ``detailed``.
        compute_capabilities: GPUs to build for, e.g. ``("8.6", "8.9")``; empty builds for the GPU of this machine.
        cuda_graph: Run as one captured CUDA graph instead of kernel by kernel.
    """

    min_shapes: tuple[str, ...] = ()
    opt_shapes: tuple[str, ...] = ()
    max_shapes: tuple[str, ...] = ()
    workspace_mib: int = 0
    builder_optimization_level: int = 3
    timing_cache: bool = True
    version_compatible: bool = False
    hardware_compatibility_level: Literal["none", "ampere+", "sameComputeCapability"] = "none"
    refit: bool = False
    strip_weights: bool = False
    use_dla_core: int | None = None
    no_tf32: bool = False
    profiling_verbosity: Literal["detailed", "layer_names_only", "none"] = "detailed"
    compute_capabilities: tuple[str, ...] = ()
    cuda_graph: bool = True

    def __post_init__(self) -> None:
        """Validate the values.

        Raises:
            RecipeError: A number is out of range, a shape cannot be parsed, or the lists of shapes differ in length.
        """
        if not 0 <= self.builder_optimization_level <= 5:
            found = self.builder_optimization_level
            raise RecipeError(f"builder_optimization_level: expected 0..5, found {found}")
        if self.workspace_mib < 0:
            raise RecipeError(f"workspace_mib: expected 0 or more, found {self.workspace_mib}")
        given = [name for name in ("min_shapes", "opt_shapes", "max_shapes") if getattr(self, name)]
        counts = {name: len(getattr(self, name)) for name in given}
        if len(set(counts.values())) > 1:
            lengths = ", ".join(f"{n} in {name}" for name, n in counts.items())
            raise RecipeError(f"shapes: expected one entry a profile in each list, found {lengths}")
        for name in given:
            for text in getattr(self, name):
                parse_shapes(text, name)

    @property
    def profiles(self) -> tuple[tuple[Shapes, Shapes, Shapes], ...]:
        """Smallest, optimal and largest shapes by input, for each optimization profile."""
        opt = self.opt_shapes or self.max_shapes or self.min_shapes
        lists = (self.min_shapes or opt, opt, self.max_shapes or opt)
        rows = zip(*lists, strict=True)
        return tuple((parse_shapes(a, "min_shapes"), parse_shapes(b, "opt_shapes"), parse_shapes(c, "max_shapes"))
                     for a, b, c in rows)  # fmt: skip


def parse_shapes(text: str, where: str) -> Shapes:
    """Parse a text such as ``input:1x3x224x224,mask:1x1`` to shapes by input.

    Args:
        text: Text to parse.
        where: Name of the option, for the error message.

    Raises:
        RecipeError: The text has another form.
    """
    shapes: Shapes = {}
    for part in text.split(","):
        name, _, sides = part.rpartition(":")  # a tensor's own name may hold colons
        numbers = sides.split("x")
        if not name or not all(number.isdecimal() and int(number) for number in numbers):
            raise RecipeError(
                f"{where}: '{text}': expected NAME:SHAPE with sides of 1 or more, found '{part}'",
                hint="e.g. input:1x3x224x224",
            )
        shapes[name] = tuple(map(int, numbers))
    return shapes


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape as `trtexec` does, with ``?`` for open dimensions."""
    return "x".join("?" if side < 0 else str(side) for side in shape)
