"""Options that state what a checkpoint's file cannot: one for each fact, shared by the commands that read one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

_PANEL = "What shapes cannot say (the file, its BN statistics or its names decide where nothing is given)"

InputSize = Annotated[
    str | None, typer.Option("--input", help="Input size, e.g. 224x224; 64 for a 1-D network, 32x32x32 for a 3-D one.")
]


def _option(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_PANEL, show_default=False)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Facts of a checkpoint, named as the keys of a recipe's source table; None lets the file decide."""

    state_key: Annotated[
        str | None, _option("--state-key", "Which state dict to take, where the file holds several.")
    ] = None
    head: Annotated[str | None, _option("--head", "Module of the head to take; 'none' for the pooled features.")] = None
    ignore: Annotated[list[str] | None, _option("--ignore", "Module or tensor to leave out; may be given again.")] = (
        None
    )
    probe: Annotated[
        Path | None, _option("--probe", "npz file with one 'input' and its 'logits': what is left open is tried on it.")
    ] = None
    strict: Annotated[bool, _option("--strict", "Refuse to guess a fact that changes the numbers.")] = False
    stem_stride: Annotated[
        str | None, _option("--stem-stride", "Of the first convolution: 2, or one for each axis: 1,2,2.")
    ] = None
    stem_pool: Annotated[str | None, _option("--stem-pool", "none, max, avg or blur.")] = None
    concat: Annotated[
        str | None, _option("--concat", "append or prepend: new channels after the old ones, or before.")
    ] = None
    activation: Annotated[
        str | None, _option("--activation", "Of the dense layers: relu, leaky_relu, elu, silu, gelu.")
    ] = None
    outer_activation: Annotated[
        str | None, _option("--outer-activation", "Of stem, transitions and end, likewise.")
    ] = None
    hidden_activation: Annotated[
        str | None, _option("--hidden-activation", "Between linear layers, likewise, or none.")
    ] = None
    slope: Annotated[float | None, _option("--slope", "Of leaky activations below zero.")] = None
    transition_relu: Annotated[
        bool | None, _option("--transition-relu/--no-transition-relu", "A ReLU in the transitions.")
    ] = None
    transition_pool: Annotated[str | None, _option("--transition-pool", "avg or max.")] = None
    final_relu: Annotated[bool | None, _option("--final-relu/--no-final-relu", "A ReLU behind the last BN.")] = None
    eps: Annotated[float | None, _option("--eps", "Of every BN, e.g. 1e-5.")] = None
    head_pool: Annotated[
        str | None, _option("--head-pool", "avg, max or max_avg: how the last map becomes a vector.")
    ] = None
    head_activation: Annotated[
        str | None, _option("--head-activation", "To put behind the logits: none, sigmoid, softmax, log_softmax.")
    ] = None

    def source_table(self) -> dict[str, Any]:
        """Return the stated facts as keys of a recipe's source table.

        Raises:
            RequestError: The stride is not a number.
        """
        from deploy_kit.cli import _quantities

        stated = {field.name: getattr(self, field.name) for field in fields(self)}
        stated["strict"] = self.strict or None
        stated["ignore"] = self.ignore or None
        stated["probe"] = None if self.probe is None else str(self.probe)
        if self.stem_stride is not None:
            example = "--stem-stride 2, or one for each axis: --stem-stride 1,2,2"
            sides = _quantities.whole_numbers(self.stem_stride, ",", example)
            stated["stem_stride"] = sides[0] if len(sides) == 1 else sides
        return {key: value for key, value in stated.items() if value is not None}
