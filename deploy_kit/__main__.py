"""``python -m deploy_kit`` and the command ``deploykit``: signals are watched before the program is loaded."""

import gc
from typing import NoReturn

from deploy_kit.base import signals
from deploy_kit.base.process_end import end_process


def main() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    signals.watch_signals()
    # What torch loads and traces with lives until the end: walking it again and again takes a sixth of `export`.
    gc.set_threshold(100_000, 20, 20)
    try:
        from deploy_kit import cli
    except BaseException:
        code = signals.signal_exit_code()
        if code is None:
            raise
        raise SystemExit(code) from None
    code = 0
    try:
        cli.main()
    except SystemExit as ended:  # its code is a number: `cli.main` gives every end one
        code = int(ended.code or 0)
    end_process(code)


if __name__ == "__main__":
    main()
