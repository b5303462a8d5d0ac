"""How much a checkpoint may take. One budget per file; a file that asks for more is refused before it gets it."""

from deploy_kit.base.errors import CheckpointError

# A state dict and its optimizer, EMA and aliased views stay under four times the file; 256 MiB serve small files.
_SHARE, _FREE_BYTES = 4, 256 << 20
# A whole DenseNet-264 module takes 0.1 million steps; 1.5 million objects take 4 s and 0.4 GiB at most.
_STEPS = 1_500_000


class ReadLimits:
    """Bytes and steps that one file may still take.

    Attributes:
        bytes: Bytes left for tensors, arrays, copied text and unpacked members.
        steps: Steps left for pickle opcodes and copied items.
    """

    def __init__(self, size: int) -> None:
        """Start with the budget of a file of `size` bytes."""
        self.bytes = _SHARE * size + _FREE_BYTES
        self.steps = _STEPS

    def take(self, n_bytes: int) -> None:
        """Spend bytes.

        Raises:
            CheckpointError: More than are left.
        """
        if n_bytes > self.bytes:
            raise CheckpointError(
                f"refused: it unpacks to far more than its size, {n_bytes:,} bytes where {self.bytes:,} were left",
                hint="it may be made to exhaust memory: get the file from its source",
            )
        self.bytes -= n_bytes

    def step(self, n: int = 1) -> None:
        """Spend steps.

        Raises:
            CheckpointError: More than are left.
        """
        self.steps -= n
        if self.steps < 0:
            raise CheckpointError(
                f"refused: its pickle takes more than {_STEPS:,} steps",
                hint="save the tensors alone where the model is at hand: torch.save(model.state_dict(), 'weights.pth')",
            )


def damaged(reason: object) -> CheckpointError:
    """Make the error of a file that is not whole."""
    text = str(reason).strip().partition("\n")[0] or type(reason).__name__
    return CheckpointError(f"truncated or incomplete: {text}", hint="get the file again")
