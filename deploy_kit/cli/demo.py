"""``deploykit demo``: the bundled demo, from checkpoint to report."""

from deploy_kit.cli import Command
from deploy_kit.cli._options import REPORTS, STORE, AllowInvalid, Fresh, OutputOptions, ReportFolder, StorePath
from deploy_kit.cli.run import run


def demo(
    *,
    store: StorePath = STORE,
    out: ReportFolder = REPORTS,
    fresh: Fresh = False,
    allow_invalid: AllowInvalid = False,
    output: OutputOptions,
) -> None:
    """Run the bundled demo: a DenseNet-BC-40 on Fashion-MNIST, to a report and a bundle, in about a minute."""
    run(
        "demo",
        store=store,
        out=out,
        pack=out / "demo" / "bundle",
        fresh=fresh,
        allow_invalid=allow_invalid,
        output=output,
    )


COMMAND = Command(
    call=demo,
    order=2,
    example="deploykit demo --allow-invalid",
)
