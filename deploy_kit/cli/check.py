"""``deploykit check``: an engine against the checkpoint's own answers."""

import typer

from deploy_kit.cli import Command, _options


def check(
    images: _options.CheckSet = None,
    skip_bad: _options.SkipBad = False,
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
    from deploy_kit.cli import _steps
    from deploy_kit.cli._console import Console, pairs
    from deploy_kit.measurements import NotRun

    asked = _steps.Asked(store=store, recipe=recipe, device=device, images=images, skip_bad=skip_bad)
    with Console(quiet=quiet, as_json=as_json, no_color=no_color) as console, _steps.started(asked, console) as run:
        engine = _steps.newest_engine(run, console)
        calibration = run.recipe.quantize
        for remark in stage.overlap(calibration.calibration, run.recipe.check, engine, skip_bad=calibration.skip_bad):
            console.say(remark)
        _, answers = pipeline.exported_with_answers(run)
        made, _ = stage.run(engine, answers, run.recipe.check, store=run.store, link=run.link, watch=run.watch)
        if isinstance(made, NotRun):
            raise _steps.not_run(made.label, made.why)
        lines = [
            ("engine", made.label),
            ("images", f"{made.n} ({made.images})"),
            *(fact for fact in answers.made_by if fact[0] == "left out"),
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
