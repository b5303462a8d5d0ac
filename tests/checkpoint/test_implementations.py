"""Checkpoints of torchvision, timm, MONAI and smp themselves: read, rebuilt, and equal to their own forward pass."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deploy_kit import checkpoint
from deploy_kit.base.lazy import present
from deploy_kit.checkpoint.facts import ArchitectureFacts, StatedFacts

ROOT = Path(__file__).parents[2]
HOME, PACKAGES = Path(sys.prefix) / "implementations", ("torchvision", "timm", "monai", "segmentation_models_pytorch")
# Name → depth by the paper's count, and what its authors' file cannot say.
_NEAREST, _BILINEAR = ArchitectureFacts(upsampling="nearest"), ArchitectureFacts(upsampling="bilinear")
NETWORKS = {
    "smp_fpn_121": (121, ArchitectureFacts(upsampling="nearest", map_scale=4)),
    "smp_fpn_121_depth_4": (88, ArchitectureFacts(upsampling="nearest", map_scale=2)),
    "smp_fpn_161": (161, ArchitectureFacts(upsampling="nearest", map_scale=2)),
    "smp_fpn_169": (169, ArchitectureFacts(upsampling="bilinear", map_scale=4)),
    "smp_unet_161": (161, _NEAREST),
    "smp_unet_169": (169, _BILINEAR),
    "smp_unet_201": (201, _NEAREST),
    "smp_unet_121_depth_4": (88, _NEAREST),
    "smp_unet_121_odd": (121, _NEAREST),
    "torchvision_small": (18, ArchitectureFacts()),
    "torchvision_121": (121, ArchitectureFacts()),
    "torchvision_161": (161, ArchitectureFacts()),
    "torchvision_169": (169, ArchitectureFacts()),
    "torchvision_201": (201, ArchitectureFacts()),
    "timm_121": (121, ArchitectureFacts()),
    "timm_deep_densenet264d": (18, ArchitectureFacts()),
    "timm_blur": (18, ArchitectureFacts(stem_pool="blur")),
    "monai_1d": (16, ArchitectureFacts()),
    "monai_2d": (16, ArchitectureFacts()),
    "monai_3d": (16, ArchitectureFacts()),
    "monai_121": (121, ArchitectureFacts()),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the implementations in a process of their own."""
    if any(not (HOME / name).is_dir() and not present(name) for name in PACKAGES):
        pytest.skip(f"needs {', '.join(PACKAGES)}: make {HOME.parent.name}/{HOME.name}/.ready")
    folder = tmp_path_factory.mktemp("implementations")
    script = [sys.executable, "-W", "ignore", str(ROOT / "tests/checkpoint/implementations.py"), str(folder)]
    ended = subprocess.run(script, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-800:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_rebuilt_network_gives_the_implementations_own_logits(made: Path, name: str) -> None:
    depth, facts = NETWORKS[name]
    stored = torch.load(made / f"{name}.io", weights_only=True)

    read = checkpoint.read_checkpoint(made / f"{name}.pth", StatedFacts(facts=facts))
    logits = read.model.double()(stored["input"].double())

    assert read.spec.depth == depth
    assert (logits - stored["logits"]).abs().max() <= 1e-9 * stored["logits"].abs().max()
    for equal in read.equations.answers(stored["input"].double()) if "smp" in name else ():
        assert (equal - stored["logits"]).abs().max() <= 1e-9 * stored["logits"].abs().max()


@pytest.mark.slow
def test_networks_of_timm_are_read_or_refused_within_ten_seconds_each() -> None:
    """Every sixtieth of its registry; `timm_sweep` reads all of them."""
    if not (HOME / "timm").is_dir():
        pytest.skip(f"needs timm: make {HOME.parent.name}/{HOME.name}/.ready")

    script = [sys.executable, "-W", "ignore", "-m", "tests.checkpoint.timm_sweep", "--every", "60"]
    ended = subprocess.run(script, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stdout[-800:] + ended.stderr[-800:]
    assert "refused" in ended.stdout
