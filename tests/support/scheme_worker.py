"""One worker process that applies schemes for a whole session, NNCF imported once. A plugin: `pytest_plugins`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_densenet import TINY_PREPROCESS

from deploy_kit.devices.links import Connection
from deploy_kit.records import codec


@pytest.fixture(scope="session")
def apply_scheme(connection: Connection) -> Iterator[Callable[..., Any]]:
    """Apply a scheme: (name, source file, target file, calibration images or None, options)."""
    with connection.worker() as worker:

        def apply(name: str, source: Path, target: Path, images: Path | None, **options: Any) -> dict[str, Any]:
            return worker.ask(
                "quantize",
                str(source),
                scheme=name,
                source=str(source),
                target=str(target),
                options=options,
                calibration=str(images) if images else None,
                preprocess=codec.to_json(TINY_PREPROCESS),
            )

        yield apply
