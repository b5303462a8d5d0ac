"""Options that state what a checkpoint's file cannot: one for each fact, shared by the commands that read one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import typer

InputSize = Annotated[
    str | None,
    typer.Option("--input", help="Input size, e.g. 224x224; 64 for a 1-D network, 32x32x32 for a 3-D network."),
]


def _help(text: str) -> Any:
    return typer.Option(help=text)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Facts that shapes cannot tell, named as the keys of a recipe's source table.

    Where an option is not given, the file, its BN statistics or its names decide.
    """

    state_key: Annotated[str | None, _help("Key of the state dict to load, if the file holds several.")] = None
    head: Annotated[str | None, _help("Name of the head module to use; 'none' for the pooled features.")] = None
    ignore: Annotated[list[str] | None, _help("Name of a module or tensor to leave out; repeatable.")] = None
    probe: Annotated[Path | None, _help("npz file with 'input' and 'logits', on which open facts are tried.")] = None
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to guess a fact that changes the numbers.")] = False
    stem_stride: Annotated[str | None, _help("Stride of the first convolution: 2, or one per axis: 1,2,2.")] = None
    stem_pool: Annotated[str | None, _help("Pooling of the stem: none, max, avg or blur.")] = None
    concat: Annotated[str | None, _help("Where new channels go: append (after the old ones) or prepend.")] = None
    activation: Annotated[str | None, _help("Activation of dense layers: relu, leaky_relu, elu, silu or gelu.")] = None
    outer_activation: Annotated[str | None, _help("Activation of stem, transitions and final BN; same choices.")] = None
    hidden_activation: Annotated[str | None, _help("Activation between linear layers; same choices, or none.")] = None
    slope: Annotated[float | None, _help("Negative slope of leaky activations.")] = None
    dense_order: Annotated[str | None, _help("In dense layers: norm_first (BN, activation) or activation_first.")] = (
        None
    )
    transition_order: Annotated[str | None, _help("In transitions; same choices.")] = None
    final_order: Annotated[str | None, _help("Of the final BN and its activation; same choices.")] = None
    hidden_order: Annotated[str | None, _help("Between linear layers; same choices.")] = None
    transition_relu: Annotated[bool | None, _help("Whether the transitions have a ReLU.")] = None
    transition_pool: Annotated[str | None, _help("Pooling of the transitions: avg, max or none.")] = None
    final_relu: Annotated[bool | None, _help("Whether a ReLU follows the final BN.")] = None
    eps: Annotated[float | None, _help("Epsilon of every BN, e.g. 1e-5.")] = None
    hidden_eps: Annotated[float | None, _help("Epsilon of BNs between linear layers, if it is another one.")] = None
    head_pool: Annotated[
        str | None, _help("Global pooling in front of the head: avg, max, max_avg, avg_max or avg_max_mean.")
    ] = None
    feature_norm: Annotated[str | None, _help("Whether the pooled features are normalized: none or l2.")] = None
    head_activation: Annotated[str | None, _help("Activation to append: none, sigmoid, softmax or log_softmax.")] = None

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
