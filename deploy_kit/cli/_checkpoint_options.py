"""Options that state what a checkpoint's file cannot: one for each fact, shared by the commands that read one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

_PANEL = "What shapes cannot say (the file, its BN statistics or its names decide where nothing is given)"

InputSize = Annotated[
    str | None,
    typer.Option("--input", help="Input size, e.g. 224x224; 64 for a 1-D network, 32x32x32 for a 3-D network."),
]


def _option(name: str, text: str) -> Any:
    return typer.Option(name, help=text, rich_help_panel=_PANEL, show_default=False)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Facts of a checkpoint, named as the keys of a recipe's source table; None lets the file decide."""

    state_key: Annotated[
        str | None, _option("--state-key", "Key of the state dict to load, if the file holds several.")
    ] = None
    head: Annotated[
        str | None, _option("--head", "Name of the head module to use; 'none' for the pooled features.")
    ] = None
    ignore: Annotated[list[str] | None, _option("--ignore", "Name of a module or tensor to leave out; repeatable.")] = (
        None
    )
    probe: Annotated[
        Path | None, _option("--probe", "npz file with an 'input' and its 'logits', on which open facts are tried.")
    ] = None
    strict: Annotated[bool, _option("--strict", "Refuse to guess a fact that changes the numbers.")] = False
    stem_stride: Annotated[
        str | None, _option("--stem-stride", "Stride of the first convolution: 2, or one number per axis: 1,2,2.")
    ] = None
    stem_pool: Annotated[str | None, _option("--stem-pool", "Pooling of the stem: none, max, avg or blur.")] = None
    concat: Annotated[
        str | None,
        _option("--concat", "Where a dense layer puts its new channels: append (after the old ones) or prepend."),
    ] = None
    activation: Annotated[
        str | None, _option("--activation", "Activation of the dense layers: relu, leaky_relu, elu, silu or gelu.")
    ] = None
    outer_activation: Annotated[
        str | None,
        _option("--outer-activation", "Activation of the stem, the transitions and the final BN; choices as above."),
    ] = None
    hidden_activation: Annotated[
        str | None,
        _option("--hidden-activation", "Activation between linear layers of the head; choices as above, or none."),
    ] = None
    slope: Annotated[float | None, _option("--slope", "Negative slope of leaky activations.")] = None
    transition_relu: Annotated[
        bool | None, _option("--transition-relu/--no-transition-relu", "Whether the transitions have a ReLU.")
    ] = None
    transition_pool: Annotated[str | None, _option("--transition-pool", "Pooling of the transitions: avg or max.")] = (
        None
    )
    final_relu: Annotated[
        bool | None, _option("--final-relu/--no-final-relu", "Whether a ReLU follows the final BN.")
    ] = None
    eps: Annotated[float | None, _option("--eps", "Epsilon of every BN, e.g. 1e-5.")] = None
    head_pool: Annotated[
        str | None, _option("--head-pool", "Global pooling in front of the head: avg, max or max_avg.")
    ] = None
    head_activation: Annotated[
        str | None,
        _option("--head-activation", "Activation to append to the logits: none, sigmoid, softmax or log_softmax."),
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
