"""The timing cache: what a builder measured of kernels, kept by version, GPU and driver, and used by the next build."""

import os
import re
from pathlib import Path
from typing import Any

from deploy_kit.engines import _cuda
from deploy_kit.store import write_whole


def timing_folder() -> Path:
    """Give the folder of timing caches: ``$XDG_CACHE_HOME/deploykit/timing``."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "deploykit" / "timing"


class TimingCache:
    """The cache of one version on one GPU under one driver."""

    def __init__(self, package: str, version: str) -> None:
        """Find its file; whatever differs in the key has a file of its own."""
        here = _cuda.device_or_none()
        parts = [
            package,
            version,
            *((f"sm{here.capability}", here.name, f"driver{here.driver}") if here else ("no-gpu",)),
        ]
        self.path = timing_folder() / (re.sub(r"[^\w.+-]+", "_", "-".join(parts)) + ".cache")
        self.known = self.path.read_bytes() if self.path.is_file() else b""

    def hand_to(self, config: Any) -> None:
        """Let a builder read it; one that TensorRT finds foreign or damaged is begun anew."""
        cache = config.create_timing_cache(self.known)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            self.known = b""
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self, config: Any) -> str:
        """Write what the builder knows now, and say what became of it."""
        data = bytes(config.get_timing_cache().serialize())
        if data != self.known:
            write_whole(self.path, data)
        return f"{self.path.name}: {'reused' if self.known else 'begun'}, {len(self.known)} → {len(data)} bytes"
