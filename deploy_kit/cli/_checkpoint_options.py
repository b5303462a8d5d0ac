"""Options that state what a checkpoint's file cannot: one for each fact, shared by the commands that read one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import typer

from deploy_kit.records.network_words import (
    Activation,
    FeatureNorm,
    HeadActivation,
    HeadPool,
    Order,
    SkipOrder,
    StemPool,
    TransitionPool,
    UpCrop,
    Upsampling,
)

InputSize = Annotated[
    str | None,
    typer.Option("--input", help="Input size, e.g. 224x224; 64 for a 1-D network, 32x32x32 for a 3-D network."),
]


def _help(text: str) -> Any:
    return typer.Option(help=text)


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How an image becomes the input, where the checkpoint does not carry it."""

    HEADING: ClassVar[str] = "Preprocessing, where the file does not state it"

    size: InputSize = None
    mean: Annotated[str | None, _help("Mean per channel in 0..1, e.g. 0.485,0.456,0.406.")] = None
    std: Annotated[str | None, _help("Standard deviation per channel, e.g. 0.229,0.224,0.225.")] = None
    color: Annotated[
        Literal["gray", "rgb", "bgr"] | None, _help("Color order; by default gray for one mean, rgb for three.")
    ] = None
    resize: Annotated[int | None, _help("Length in px to scale the shorter side to, before a center crop.")] = None
    interpolation: Annotated[
        Literal["bilinear", "bicubic"] | None, _help("Interpolation of --resize; by default bilinear.")
    ] = None

    def source_table(self) -> dict[str, Any]:
        """Return a recipe's ``preprocess`` table, or its ``input`` if there is a size alone.

        Raises:
            RequestError: A part is missing or not a number.
        """
        from deploy_kit.base.errors import RequestError
        from deploy_kit.cli import _quantities

        size, mean, std = self.size, self.mean, self.std
        stated: dict[str, Any] = {"resize": self.resize, "interpolation": self.interpolation}
        given = {key: value for key, value in stated.items() if value is not None}
        if mean is None and std is None and self.color is None and not given:
            if size is None:
                return {}
            return {"input": _quantities.whole_numbers(size, "x", "--input 224x224"), "preprocess": None}
        if mean is None or std is None:
            raise RequestError(
                "--mean and --std must be given together", hint="e.g. --input 28x28 --mean 0.286 --std 0.353"
            )
        if size is not None:
            sides = _quantities.whole_numbers(size, "x", "--input 224x224")
            if len(sides) != 2:
                raise RequestError(
                    f"--input: expected height and width of an image, found '{size}'", hint="--input 224x224"
                )
            given |= dict(zip(("height", "width"), sides, strict=True))
            if self.resize is not None and self.resize < min(sides):  # the shorter side; the other may be longer
                raise RequestError(
                    f"--resize {self.resize}: expected at least {min(sides)} px, as --input {size} is cut out of it",
                    hint=f"--resize {max(sides)}",
                )
        means, stds = _numbers("--mean", mean), _numbers("--std", std)
        color = self.color or ("gray" if len(means) == 1 else "rgb")
        return {"preprocess": {"color": color, "mean": means, "std": stds, **given}}


def _numbers(option: str, text: str) -> list[float]:
    from deploy_kit.base.errors import RequestError

    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RequestError(
            f"{option}: expected a number for each channel, found '{text}'", hint=f"e.g. {option} 0.5,0.5,0.5"
        ) from error


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """Facts that shapes cannot tell, named as the keys of a recipe's source table.

    Where an option is not given, the file, its BN statistics or its names decide.
    """

    HEADING: ClassVar[str] = "Facts of a checkpoint that the file does not state"

    state_key: Annotated[str | None, _help("Key of the state dict to load, if the file holds several.")] = None
    head: Annotated[str | None, _help("Name of the head module to use; 'none' for the pooled features.")] = None
    ignore: Annotated[list[str] | None, _help("Name of a module or tensor to leave out; repeatable.")] = None
    probe: Annotated[Path | None, _help("npz file with 'input' and 'logits', on which open facts are tried.")] = None
    strict: Annotated[bool, typer.Option("--strict", help="Refuse to guess a fact that changes the numbers.")] = False
    stem_stride: Annotated[str | None, _help("Stride of the first convolution: 2, or one per axis: 1,2,2.")] = None
    stem_pool: Annotated[StemPool | None, _help("Pooling of the stem.")] = None
    concat: Annotated[
        Literal["append", "prepend"] | None, _help("Where new channels go: after the old, or before.")
    ] = None
    activation: Annotated[Activation | None, _help("Activation of dense layers.")] = None
    outer_activation: Annotated[Activation | None, _help("Activation of stem, transitions and final BN.")] = None
    stem_activation: Annotated[Activation | None, _help("Activation of the stem, if it is another one.")] = None
    hidden_activation: Annotated[Activation | None, _help("Activation between linear layers.")] = None
    slope: Annotated[float | None, _help("Negative slope of leaky activations.")] = None
    stem_slope: Annotated[float | None, _help("The same in the stem, if it is another one.")] = None
    outer_slope: Annotated[float | None, _help("The same outside of dense layers, if it is another one.")] = None
    hidden_slope: Annotated[float | None, _help("The same between linear layers, if it is another one.")] = None
    dense_order: Annotated[Order | None, _help("Order of BN and activation in dense layers.")] = None
    transition_order: Annotated[Order | None, _help("Order of BN and activation in transitions.")] = None
    final_order: Annotated[Order | None, _help("Order of the final BN and its activation.")] = None
    hidden_order: Annotated[Order | None, _help("Order of BN and activation between linear layers.")] = None
    transition_relu: Annotated[bool | None, _help("Whether the transitions have a ReLU.")] = None
    transition_pool: Annotated[TransitionPool | None, _help("Pooling of the transitions.")] = None
    final_relu: Annotated[bool | None, _help("Whether a ReLU follows the final BN.")] = None
    eps: Annotated[float | None, _help("Epsilon of every BN, e.g. 1e-5.")] = None
    hidden_eps: Annotated[float | None, _help("Epsilon of BNs between linear layers, if it is another one.")] = None
    head_pool: Annotated[HeadPool | None, _help("Global pooling in front of the head.")] = None
    feature_norm: Annotated[FeatureNorm | None, _help("Whether the pooled features are normalized.")] = None
    head_activation: Annotated[HeadActivation | None, _help("Activation to append to the head.")] = None
    skip_order: Annotated[
        SkipOrder | None, _help("Order in which a decoder joins enlarged maps and the encoder's.")
    ] = None
    up_crop: Annotated[UpCrop | None, _help("Pixels that stay of a transposed convolution's odd number.")] = None
    upsampling: Annotated[Upsampling | None, _help("Interpolation of a decoder that resizes.")] = None
    map_scale: Annotated[
        int | None, _help("How many times larger a feature pyramid's output is than its own maps.")
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
