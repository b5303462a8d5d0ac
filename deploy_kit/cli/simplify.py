"""``deploykit simplify``: the same function in fewer steps."""

from typing import TYPE_CHECKING, Annotated

from deploy_kit.cli import Command
from deploy_kit.cli._option_groups import Only
from deploy_kit.cli._options import OutputOptions, StepOptions

if TYPE_CHECKING:
    from deploy_kit.records.results import PassRow


def simplify(*, step: Annotated[StepOptions, Only("model", "recipe", "store", "out")], output: OutputOptions) -> None:
    """Simplify the graph, and verify the outputs after each pass."""
    from deploy_kit import pipeline
    from deploy_kit.cli import _output_files, _step_inputs, _steps
    from deploy_kit.cli._console import table

    with output.console() as console, _steps.open_run(step, console) as run:
        simplified = pipeline.simplified(run, _step_inputs.exported(run, console))
        _output_files.copy_out(run, simplified.onnx, step.out, console)
        headings = ("pass", "fired", "nodes", "MACs", "difference", "refused")
        drawn = table(headings, [_row(row) for row in simplified.passes])
        console.result(simplified, f"{drawn}\n\nonnx: {run.store.root / simplified.onnx.path}")


def _row(row: "PassRow") -> tuple[str, ...]:
    return (
        row.name,
        str(row.fired),
        f"{row.nodes_before} → {row.nodes_after}",
        f"{row.macs_before:,} → {row.macs_after:,}",
        f"{row.max_difference:.2g}",
        "; ".join(f"{n}: {reason}" for reason, n in row.refused),
    )


COMMAND = Command(
    call=simplify,
    order=20,
    example="deploykit simplify -o simple.onnx",
)
