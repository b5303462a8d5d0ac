"""``deploykit check``: an engine against the checkpoint's own answers."""

from typing import Annotated, Optional

import typer

from deploy_kit.cli import Command, _options


def check(
    images: _options.CheckSet = None,
    layers: Annotated[
        Optional[tuple[str, str]],  # noqa: UP045  # typer reads it at run time, also on Python 3.10
        typer.Option(metavar="A B", help="Say where two differ: files, labels, names of graphs, or 'checkpoint'."),
    ] = None,
    recipe: _options.RecipeName = None,
    device: _options.DeviceName = "local",
    store: _options.StorePath = _options.STORE,
    quiet: _options.Quiet = False,
    as_json: _options.Json = False,
    no_color: _options.NoColor = False,
) -> None:
    """Check the newest engine against the checkpoint; exit code 1 if a limit is not kept."""
    from deploy_kit import check as stage
    from deploy_kit import pipeline
    from deploy_kit.cli import _difference, _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.measurements import NotRun

    asked = _steps.Asked(store=store, recipe=recipe, device=device, images=images)
    if layers is not None:
        with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console:
            _difference.show(layers, asked, console)
        return
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        engine = _steps.newest_engine(run, console)
        stage.overlap(run.recipe.quantize.calibration, run.recipe.check, engine)
        _, answers = pipeline.exported_with_answers(run)
        made, _ = stage.run(engine, answers, run.recipe.check, store=run.store, link=run.link, watch=run.watch)
        if isinstance(made, NotRun):
            raise _steps.not_run(made.label, made.why)
        lines = [
            ("engine", made.label),
            ("images", f"{made.n} ({made.images})"),
            ("SQNR", f"{made.sqnr_db:.1f} dB"),
            ("cosine", f"{made.cosine:.6f}"),
            ("largest logit error", f"{made.max_error:.4g}"),
            ("top-1 agreement", f"{100 * made.agreement:.2f} %"),
        ]
        if made.top1 is not None and made.top1_reference is not None and made.drop_pp is not None:
            lines.append(("top-1", f"{100 * made.top1_reference:.2f} % → {100 * made.top1:.2f} %"))
            lines.append(("drop", f"{made.drop_pp:+.2f} ± {made.drop_pp_interval:.2f} points"))
        lines.append(("verdict", "accepted" if made.passed else "rejected: " + "; ".join(made.failures)))
        console.result(made, pairs(lines))
    if not made.passed:
        raise typer.Exit(1)


COMMAND = Command(call=check, order=50)
