"""A sample of the sweep over other people's networks that concatenate features (`concat_sweep`)."""

import sys
from pathlib import Path

import pytest

from deploy_kit.base.lazy import present
from tests.quantization import concat_sweep

HOME = Path(sys.prefix) / "implementations"
# Aggregation trees with grouped convolutions, one-shot aggregation, cross-stage partial connections.
SAMPLE = ("timm:dla46x_c", "timm:ese_vovnet19b_slim", "timm:cs3darknet_focus_s")


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLE)
def test_network_of_the_sample_passes_every_step(name: str) -> None:
    if not (HOME / "timm").is_dir() and not present("timm"):
        pytest.skip(f"needs timm: make {HOME.parent.name}/{HOME.name}/.ready")

    assert concat_sweep.in_a_process(name, limit_s=1200).startswith("passed: int8 onnxruntime ")
