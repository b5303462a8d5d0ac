"""The record of one deployment as ``report.json``; ``report.md`` and the page ``report.html`` are views of it."""

import dataclasses
import json
from pathlib import Path

from deploy_kit.base.errors import InputError, StoreError, no_such_file
from deploy_kit.base.text_files import read_json
from deploy_kit.base.whole_files import write_together
from deploy_kit.records import codec, first_page
from deploy_kit.records.engine_table import summary
from deploy_kit.records.results import Report
from deploy_kit.stages.report import content, page, plausible
from deploy_kit.stages.report.content import notes
from deploy_kit.stages.report.markdown import section, table

__all__ = ["load_report", "markdown", "notes", "run", "unlike_views"]

_PATHS = "# Relative paths begin at the folder in which deploykit was started.\n"


def run(report: Report, folder: Path, *, again: bool = False) -> Path:
    """Write ``report.json``, its views, and ``recipe.yaml``, which makes it again, into a folder.

    Args:
        report: What was found.
        folder: Where to write.
        again: Whether it is drawn again from its record, whose command stays: paths of the recipe begin where it ran.

    Returns:
        The path of ``report.md``.

    Raises:
        StoreError: A record that it was made of was changed, or a file cannot be written.
    """
    try:
        plausible.verify_report(report, "the store")
    except InputError as error:
        hint = "remove the folders 'check' and 'bench' of the store, and run again"
        raise StoreError(f"{error}: its record was changed since it was made", hint=hint) from error
    files: dict[Path, str | bytes | Path] = {}
    if report.recipe_yaml:
        recipe = folder / "recipe.yaml"
        files[recipe] = _PATHS + report.recipe_yaml.removeprefix(_PATHS)
        if not again:
            report = dataclasses.replace(report, command=first_page.repeat_command(str(recipe), report.device))
    files |= {
        folder / "report.json": json.dumps(codec.to_json(report), ensure_ascii=False, indent=1) + "\n",
        folder / "report.html": page.page(report),
        folder / "report.md": markdown(report),
    }
    write_together(files)
    return folder / "report.md"


def unlike_views(report: Report, folder: Path) -> tuple[str, ...]:
    """Name the files beside a record that are not what it draws; none where another version made it.

    Args:
        report: As it was read from its record.
        folder: Folder of the record.
    """
    if not plausible.is_ours(report.version):
        return ()
    drawn = {"report.md": markdown(report), "report.html": page.page(report)}
    if report.recipe_yaml:
        drawn["recipe.yaml"] = _PATHS + report.recipe_yaml.removeprefix(_PATHS)
    return tuple(
        name
        for name, text in drawn.items()
        if (folder / name).is_file() and (folder / name).read_bytes() != text.encode("utf-8")
    )


def load_report(path: Path) -> Report:
    """Load a report from its ``report.json``.

    Raises:
        InputError: The file is missing, not a report, or holds numbers that cannot be.
    """
    try:
        data = read_json(path)
    except FileNotFoundError as error:
        raise no_such_file(path, "report") from error
    report = codec.from_json(Report, data, str(path))
    plausible.verify_report(report, str(path))
    return report


def markdown(report: Report) -> str:
    """Return a report as Markdown."""
    verdict = summary(report).replace("is rejected.", "is **rejected**.").replace("is undecided.", "is **undecided**.")
    facts = table(("what", "value"), first_page.facts(report))
    lines = [f"# {content.title(report)}", "", verdict, "", *facts, ""]
    return "\n".join((*lines, *(line for part in content.sections(report) for line in section(part))))
