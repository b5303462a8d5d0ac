"""Flags that say of a checkpoint what its file cannot: one for each fact, shared by the commands that read one."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

_PANEL = "What shapes cannot say (the file, its BN statistics or its names decide where nothing is given)"


def _flag(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_PANEL, show_default=False)


_Text = Optional[str]  # noqa: UP045  # typer reads it at run time, also on Python 3.10
_Number = Optional[float]  # noqa: UP045
_YesNo = Optional[bool]  # noqa: UP045

InputSize = Annotated[
    _Text, typer.Option("--input", help="Input size, e.g. 224x224; 64 for a 1-D network, 32x32x32 for a 3-D one.")
]
StateKey = Annotated[_Text, _flag("--state-key", "Which state dict to take, where the file holds several.")]
Head = Annotated[_Text, _flag("--head", "Module of the head to take; 'none' for the pooled features.")]
Ignore = Annotated[Optional[list[str]], _flag("--ignore", "Module or tensor to leave out; may be given again.")]  # noqa: UP045
Probe = Annotated[
    Optional[Path],  # noqa: UP045
    _flag("--probe", "npz file with one 'input' and its 'logits': what is left open is tried on it."),
]
Strict = Annotated[bool, _flag("--strict", "Refuse to guess a fact that changes the numbers.")]
StemStride = Annotated[_Text, _flag("--stem-stride", "Of the first convolution: 2, or one for each axis: 1,2,2.")]
StemPool = Annotated[_Text, _flag("--stem-pool", "none, max, avg or blur.")]
Concat = Annotated[_Text, _flag("--concat", "append or prepend: new channels after the old ones, or before.")]
Activation = Annotated[_Text, _flag("--activation", "Of the dense layers: relu, leaky_relu, elu, silu, gelu.")]
OuterActivation = Annotated[_Text, _flag("--outer-activation", "Of stem, transitions and end, likewise.")]
HiddenActivation = Annotated[_Text, _flag("--hidden-activation", "Between linear layers, likewise, or none.")]
Slope = Annotated[_Number, _flag("--slope", "Of leaky activations below zero.")]
TransitionRelu = Annotated[_YesNo, _flag("--transition-relu/--no-transition-relu", "A ReLU in the transitions.")]
TransitionPool = Annotated[_Text, _flag("--transition-pool", "avg or max.")]
FinalRelu = Annotated[_YesNo, _flag("--final-relu/--no-final-relu", "A ReLU behind the last BN.")]
Eps = Annotated[_Number, _flag("--eps", "Of every BN, e.g. 1e-5.")]
HeadPool = Annotated[_Text, _flag("--head-pool", "avg, max or max_avg: how the last map becomes a vector.")]
HeadActivation = Annotated[
    _Text, _flag("--head-activation", "To put behind the logits: none, sigmoid, softmax, log_softmax.")
]


def source(given: dict[str, Any]) -> dict[str, Any]:
    """Turn what was given into keys of a recipe's source table; what was not given is left out.

    Args:
        given: Flag → value: the command's own parameters.

    Raises:
        RequestError: A size or a stride is not a number.
    """
    table = {key: given[key] for key in _PLAIN if given.get(key) not in (None, False)}
    table |= {key: given[key] for key in ("transition_relu", "final_relu") if given.get(key) is not None}
    if given.get("probe") is not None:
        table["probe"] = str(given["probe"])
    if given.get("ignore"):
        table["ignore"] = list(given["ignore"])
    if given.get("stem_stride") is not None:
        sides = numbers(given["stem_stride"], ",", "--stem-stride 2, or one for each axis: --stem-stride 1,2,2")
        table["stem_stride"] = sides[0] if len(sides) == 1 else sides
    return table


def numbers(text: str, mark: str, example: str) -> list[int]:
    """Read whole numbers between marks, e.g. ``224x224``.

    Raises:
        RequestError: They are none; the example is the hint.
    """
    from deploy_kit.base.errors import RequestError

    try:
        return [int(part) for part in text.lower().split(mark)]
    except ValueError as error:
        raise RequestError(f"'{text}': expected whole numbers", hint=f"e.g. {example}") from error


_PLAIN = (
    "state_key", "head", "strict", "stem_pool", "concat", "activation", "outer_activation", "hidden_activation",
    "slope", "transition_pool", "eps", "head_pool", "head_activation",
)  # fmt: skip
