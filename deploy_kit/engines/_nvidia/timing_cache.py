"""The timing cache: a builder's measurements of kernels, kept by version, GPU and driver and reused by later builds."""

import re
from pathlib import Path
from typing import Any

from deploy_kit.base.user_folders import cache_folder
from deploy_kit.base.whole_files import write_whole
from deploy_kit.engines import _cuda


def timing_folder() -> Path:
    """Return the folder of timing caches: ``$XDG_CACHE_HOME/deploykit/timing``; without a home, one below the current.

    A cache saves time and decides nothing, so a user without a home loses it with the folder that is worked in.
    """
    return (cache_folder() or Path(".deploykit")) / "timing"


class TimingCache:
    """The timing cache of one library version on one GPU with one driver."""

    def __init__(self, package: str, version: str) -> None:
        """Read the cache's file, if there is one; each combination of version, GPU and driver has a file of its own."""
        here = _cuda.device_or_none()
        parts = [
            package,
            version,
            *((f"sm{here.capability}", here.name, f"driver{here.driver}") if here else ("no-gpu",)),
        ]
        self.path = timing_folder() / (re.sub(r"[^\w.+-]+", "_", "-".join(parts)) + ".cache")
        self.known = self.path.read_bytes() if self.path.is_file() else b""

    def hand_to(self, config: Any) -> None:
        """Hand the cache to a builder; one that TensorRT rejects as foreign or damaged is replaced by an empty one."""
        cache = config.create_timing_cache(self.known)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            self.known = b""
            config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)

    def keep(self, config: Any) -> str:
        """Write the builder's cache, and describe whether it was reused and how it grew."""
        data = bytes(config.get_timing_cache().serialize())
        if data != self.known:
            write_whole(self.path, data)
        return f"{self.path.name}: {'reused' if self.known else 'begun'}, {len(self.known)} → {len(data)} bytes"
