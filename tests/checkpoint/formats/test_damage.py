"""Damaged files of every container: cut, flipped, shuffled. Each ends in weights or in an error made on purpose."""

import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from checkpoint_files import SAVERS, bytes_of, tiny_net, weights
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras_files import densenet_config, weights_3, write_keras_2, write_keras_3
from torch import Tensor

from deploy_kit.base.errors import DeployKitError
from deploy_kit.checkpoint.formats import container

# HDF5 is read by a process of its own, a third of a second each time.
ROUNDS, HDF5_ROUNDS = 1000, 12
HDF5 = ("keras", "keras 2", "keras weights")
CONTAINERS = (*SAVERS, "whole module", "TorchScript", "torch.export")


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One small file of each container."""
    folder = tmp_path_factory.mktemp("samples")
    made = {name: bytes_of(saver, weights(), folder) for name, saver in SAVERS.items()}
    images = torch.zeros(1, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated tracer
        torch.jit.trace(tiny_net(), images, check_trace=False).save(str(folder / "traced"))
    torch.export.save(torch.export.export(tiny_net(), (images,)), folder / "exported.pt2")
    return made | {
        "whole module": bytes_of(SAVERS["torch zip"], tiny_net(), folder),
        "TorchScript": (folder / "traced").read_bytes(),
        "torch.export": (folder / "exported.pt2").read_bytes(),
        "keras": write_keras_3(folder / "keras", densenet_config(3)).read_bytes(),
        "keras 2": write_keras_2(folder / "keras 2", densenet_config(2)).read_bytes(),
        "keras weights": weights_3(named=True),
    }


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged") / "file"


@pytest.fixture(autouse=True)
def nothing_is_run(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever would run something on behalf of a file fails the test, for no error made on purpose comes of it."""
    for name in ("os.system", "os.popen", "pickle.loads", "pickle.load", "pickle.Unpickler",
                 "torch.load", "torch.jit.load"):  # fmt: skip
        monkeypatch.setattr(name, _forbidden(name))
    yield


def _forbidden(name: str) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError(f"{name} was called")

    return fail


def cut(data: bytes, generator: random.Random) -> bytes:
    return data[: generator.randrange(len(data))]


def flip(data: bytes, generator: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(generator.choice((1, 1, 1, 4, 16))):
        # Names, shapes and directories lie at the ends; between them are weights.
        ends = (generator.randrange(min(4000, len(data))), len(data) - 1 - generator.randrange(min(4000, len(data))))
        changed[generator.choice((*ends, generator.randrange(len(data))))] ^= 1 << generator.randrange(8)
    return bytes(changed)


def shuffle(data: bytes, generator: random.Random) -> bytes:
    """Let two stretches change places, or repeat one, or leave one out."""
    a, b, c, d = sorted(generator.randrange(len(data)) for _ in range(4))
    return generator.choice(
        (
            data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:],
            data[:b] + data[a:b] + data[b:],
            data[:a] + data[b:],
        )
    )


DAMAGES = {"cut": cut, "flip": flip, "shuffle": shuffle}


def settled(rounds: int) -> settings:
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(max_examples=rounds, derandomize=True, database=None, deadline=None, suppress_health_check=health)


@pytest.mark.slow
@settled(ROUNDS)
@given(st.sampled_from(CONTAINERS), st.sampled_from(sorted(DAMAGES)), st.integers(0, 2**32))
def test_damaged_file_ends_in_weights_or_an_error_made_on_purpose(
    samples: dict[str, bytes], path: Path, kind: str, damage: str, seed: int
) -> None:
    assert_sound(path, DAMAGES[damage](samples[kind], random.Random(seed)))


@pytest.mark.slow
@settled(HDF5_ROUNDS)
@given(st.sampled_from(HDF5), st.sampled_from(sorted(DAMAGES)), st.integers(0, 2**32))
def test_damaged_hdf5_ends_in_weights_or_an_error_made_on_purpose(
    samples: dict[str, bytes], path: Path, kind: str, damage: str, seed: int
) -> None:
    assert_sound(path, DAMAGES[damage](samples[kind], random.Random(seed)))


def assert_sound(path: Path, data: bytes) -> None:
    path.write_bytes(data)

    try:
        contents = container.read_contents(path)
    except DeployKitError as error:
        assert error.exit_code == 2
        assert str(error).startswith(str(path))
    else:
        assert all(isinstance(tensor, Tensor) for tensor in contents.tensors.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch zip", "whole module", "TorchScript", "torch.export"])
def test_archive_that_is_read_after_a_flip_holds_the_weights_as_they_were(
    kind: str, samples: dict[str, bytes], path: Path
) -> None:
    """Every member has its CRC: a flip is refused, or it hit what no number depends on."""
    path.write_bytes(samples[kind])
    wanted = container.read_contents(path).tensors
    generator = random.Random(0)
    read = 0

    for _ in range(150):
        path.write_bytes(flip(samples[kind], generator))
        try:
            found = container.read_contents(path).tensors
        except DeployKitError:
            continue
        read += 1
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in wanted.items())

    assert read < 150


@pytest.mark.slow
@pytest.mark.parametrize("kind", (*CONTAINERS, *HDF5))
def test_file_cut_off_in_its_first_bytes_is_refused_wherever_it_ends(
    kind: str, samples: dict[str, bytes], path: Path
) -> None:
    for length in range(0, 100, 20 if kind in HDF5 else 1):
        path.write_bytes(samples[kind][:length])

        with pytest.raises(DeployKitError):
            container.read_contents(path)
