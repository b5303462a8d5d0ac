"""What both NVIDIA flavours share: one way from typed ONNX to a plan, its proof, its passport and its session.

Every network is strongly typed: dtypes come from the graph. TensorRT 10 is told so by a flag; TensorRT 11 and
TensorRT-RTX know nothing else. What differs between the flavours is a `Flavour`, one for each engine's file.
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
        package: Import name, and the engine's.
        title: As NVIDIA writes it.
        refuses: Option → why this flavour does not take it.
        capabilities: (module, options) → compute capabilities that the plan will fit, e.g. ``("8.6", "8.9")``.
        configure: (module, builder config, options) → None; sets what only this flavour has.
        timed: Whether its builder times kernels on the GPU, so that a timing cache pays.
    """

    package: str
    title: str
    refuses: Mapping[str, str]
    capabilities: Callable[[Any, TensorRtOptions], tuple[str, ...]]
    configure: Callable[[Any, Any, TensorRtOptions], None]
    timed: bool


def flavour_module(flavour: Flavour) -> Any:
    """Import the flavour's package.

    Raises:
        MissingPackageError: It is absent or does not load.
    """
    return need(flavour.package, by=f"engine '{flavour.package}'")


def releases_library_objects(call: Callable[P, T]) -> Callable[P, T]:
    """Make a call let go of the library's objects before its error travels on.

    An error keeps the frames it passed, and these the builders and engines in them. Once it is part of a cycle they are
    freed whenever Python collects, which may be inside the logger: there the library holds the lock that freeing takes,
    and waits for itself forever (TensorRT-RTX 1.7.1).
    """

    @functools.wraps(call)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except BaseException as error:
            connection: BaseException | None = error
            while connection is not None:
                traceback.clear_frames(connection.__traceback__)
                connection = connection.__cause__ or connection.__context__
            raise

    return wrapped


def verify_options(flavour: Flavour, options: TensorRtOptions) -> None:
    """Refuse an option that this flavour does not take.

    Raises:
        RecipeError: One was set; the message says why not.
    """
    default = TensorRtOptions()
    for name, why in flavour.refuses.items():
        if getattr(options, name) != getattr(default, name):
            raise RecipeError(f"engine '{flavour.package}'.{name}: {why}", hint=f"leave '{name}' out")


class LibraryMessages:
    """Collects what a library says of errors, and counts what it says of copies."""

    def __init__(self, trt: Any) -> None:
        """Make `logger`, to be handed to the library of module `trt`."""
        words: list[str] = []
        warnings: list[str] = []

        class Collector(trt.ILogger):  # type: ignore[misc]  # the base class is known only once its library is loaded
            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    words.append(message)
                elif severity == trt.ILogger.WARNING:
                    warnings.append(message)

        self.logger = Collector()
        self.errors = words
        self.warnings = warnings

    def __str__(self) -> str:
        return "\n".join(self.errors)
