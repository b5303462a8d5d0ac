"""The paper's networks: their numbers of parameters are those that others publish."""

from pathlib import Path

import pytest

from deploy_kit import checkpoint
from deploy_kit.base.errors import UnknownNameError
from deploy_kit.checkpoint.network import random_densenet
from deploy_kit.checkpoint.network.densenet_module import DenseNet

# torchvision's documentation; the paper's table 2 rounds DenseNet-BC-100 (k = 12) to 0.8 M.
PARAMETERS = {
    "densenet121": 7_978_856,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "densenet161": 28_681_000,
    "densenet_bc100_k12": 769_162,
}


@pytest.mark.parametrize(("name", "parameters"), PARAMETERS.items())
def test_an_architecture_has_the_parameters_that_are_published(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in DenseNet(random_densenet.spec(name)).parameters()) == parameters


def test_the_depth_is_in_the_name() -> None:
    depths = {name: random_densenet.spec(name).depth for name in random_densenet.NAMES}

    assert depths.pop("densenet264") == 265  # by its blocks in the paper's table 1, which calls it 264
    assert all(str(depth) in name for name, depth in depths.items())


def test_a_written_checkpoint_is_read_as_what_it_is_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        random_densenet.write("densenet_bc100_k12", tmp_path / f"{name}.safetensors")

    found = checkpoint.read_checkpoint(tmp_path / "a.safetensors")

    assert found.spec.title == "DenseNet-BC-100 (k = 12)"
    assert found.preprocess is not None and found.preprocess.height == 32
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_an_unknown_name_has_the_nearest() -> None:
    with pytest.raises(UnknownNameError) as caught:
        random_densenet.spec("densenet12")

    assert caught.value.hint == "did you mean 'densenet121'?"
