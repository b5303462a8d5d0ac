"""``deploykit simplify``: the same function in fewer steps."""

from deploy_kit.cli import Command, _options


def simplify(
    model: _options.ModelPath = None,
    recipe: _options.RecipeName = None,
    store: _options.StorePath = _options.STORE,
    out: _options.OutPath = None,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Simplify the graph, each pass held to its promise."""
    from deploy_kit import pipeline
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, table

    asked = _steps.Asked(store=store, recipe=recipe, model=model, out=out)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        made = pipeline.simplified(run, _steps.exported(run, console))
        _steps.copy_out(run, made.onnx, out, console)
        rows = [
            (
                row.name,
                str(row.fired),
                f"{row.nodes_before} → {row.nodes_after}",
                f"{row.macs_before:,} → {row.macs_after:,}",
                f"{row.max_difference:.2g}",
                "; ".join(f"{n}: {reason}" for reason, n in row.refused),
            )
            for row in made.passes
        ]
        drawn = table(("pass", "fired", "nodes", "MACs", "difference", "refused"), rows)
        console.result(made, f"{drawn}\n\nonnx: {run.store.root / made.onnx.path}")


COMMAND = Command(call=simplify, order=20)
