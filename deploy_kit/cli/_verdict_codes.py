"""Which exit code a verdict ends a command with."""

from deploy_kit.records.results import ParityReport, Report
from deploy_kit.records.verdict import Word

EXIT_CODES: dict[Word, int] = {"accepted": 0, "rejected": 1, "undecided": 6}


def report_code(report: Report, *, allow_invalid: bool) -> int:
    """Return the exit code of a report: a stage that failed (5) before a rejection (1) before what is undecided (6).

    Args:
        report: The report.
        allow_invalid: Whether invalid latencies alone leave nothing undecided.
    """
    if any(row.failed for row in report.rows):
        return 5
    word = report.verdict
    if word == "undecided" and allow_invalid:
        words = [row.parity.verdict.word for row in report.rows if row.judged and isinstance(row.parity, ParityReport)]
        word = "accepted" if words and "undecided" not in words else "undecided"
    return EXIT_CODES[word]
