"""The part that TensorRT and TensorRT-RTX share: from a typed ONNX graph to a plan, its proof, passport and session.

Every network is strongly typed: dtypes come from the graph. TensorRT 10 takes a flag for this; TensorRT 11 and
TensorRT-RTX know no other networks. What differs between the two libraries is a `Flavour`, one in each engine's file.

options        options of both engines, under the names of `trtexec`
network        ONNX → a typed network: parsed, its layers counted, its open inputs given profiles
build          a typed network → a plan
proof          the types that a plan computes in, from the engine inspector or the text in the plan
passport       the file beside a plan that states what the plan fits
session        a plan that runs on CUDA device 0
timing_cache   the timing cache of builders
"""

import functools
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from deploy_kit.base.errors import RecipeError
from deploy_kit.base.lazy import need
from deploy_kit.engines._nvidia.options import TensorRtOptions

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """What differs between TensorRT and TensorRT-RTX.

    Attributes:
        package: Import name of the library, which is also the engine's name.
        title: Name of the library as NVIDIA writes it.
        refuses: Option → why this flavour does not support it.
        capabilities: (module, options) → compute capabilities that the plan will fit, e.g. ``("8.6", "8.9")``.
        configure: (module, builder config, options) → None; sets what only this flavour has.
        timed: Whether its builder times kernels on the GPU, so that a timing cache saves time.
    """

    package: str
    title: str
    refuses: Mapping[str, str]
    capabilities: Callable[[Any, TensorRtOptions], tuple[str, ...]]
    configure: Callable[[Any, Any, TensorRtOptions], None]
    timed: bool


def flavour_module(flavour: Flavour) -> Any:
    """Import the flavour's library.

    Raises:
        MissingPackageError: The library is not installed or does not load.
    """
    return need(flavour.package, by=f"engine '{flavour.package}'")


def releases_library_objects(call: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function so that an error releases the library's objects before it is passed on.

    An error keeps the frames that it passed, and these keep their builders and engines. Once the error is part of a
    reference cycle, these are freed whenever Python collects garbage, which may be inside the logger. There the library
    holds the lock that freeing takes, and waits for itself forever (seen with TensorRT-RTX 1.7.1).
    """

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            link: BaseException | None = error
            while link is not None:
                traceback.clear_frames(link.__traceback__)
                link = link.__cause__ or link.__context__
            raise

    return wrapped


def verify_options(flavour: Flavour, options: TensorRtOptions) -> None:
    """Refuse options that this flavour does not support.

    Raises:
        RecipeError: Such an option is set; the message gives the reason.
    """
    default = TensorRtOptions()
    for name, why in flavour.refuses.items():
        if getattr(options, name) != getattr(default, name):
            raise RecipeError(f"engine '{flavour.package}'.{name}: {why}", hint=f"leave '{name}' out")


class LibraryMessages:
    """Collects the errors and warnings that the library logs; as a text it is the errors."""

    def __init__(self, trt: Any) -> None:
        """Create `logger`, to be handed to the library.

        Args:
            trt: The library's module.
        """
        errors: list[str] = []
        warnings: list[str] = []

        class Collector(trt.ILogger):  # type: ignore[misc]  # the base class is known only once its library is loaded
            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    errors.append(message)
                elif severity == trt.ILogger.WARNING:
                    warnings.append(message)

        self.logger = Collector()
        self.errors = errors
        self.warnings = warnings

    def __str__(self) -> str:
        return "\n".join(self.errors)
