"""Read the state dict of every model of timm's registry: a DenseNet, a question, or refused, each within ten seconds.

    python -m tests.checkpoint.timm_sweep [--every N] [--part K/N]

Models are built without memory; their tensors are parts of one buffer of noise, so that models of any size cost little.
Runs in a process of its own, as `implementations` does.
"""

import argparse
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from deploy_kit.base.errors import CheckpointError
from deploy_kit.checkpoint.architecture import structure
from deploy_kit.checkpoint.contents import Contents
from tests.checkpoint import implementations

LIMIT_S = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--every", type=int, default=1, help="read one model of so many")
    parser.add_argument("--part", default="1/1", help="a part of the names in order, e.g. 2/4")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    slow, wrong = [], []
    for name, tensors in _state_dicts(options.every, *map(int, options.part.split("/"))):
        start = time.perf_counter()
        outcome = outcome_of(name, tensors)
        seconds = time.perf_counter() - start
        counts[outcome.partition(":")[0]] += 1
        print(f"{seconds:6.2f} s  {name}: {outcome}", flush=True)
        slow += [name] * (seconds > LIMIT_S)
        wrong += [name] * (outcome.startswith("read") and "densenet" not in name)
    print(", ".join(f"{n} {kind}" for kind, n in counts.most_common()))
    print(f"slower than {LIMIT_S:.0f} s: {', '.join(slow) or 'none'}")
    print(f"no DenseNet and read as one: {', '.join(wrong) or 'none'}")
    return 1 if slow or wrong else 0


def outcome_of(name: str, tensors: dict[str, Tensor]) -> str:
    """Read one state dict and say in a line what came out."""
    try:
        parsed = structure.parse_structure(Contents(kind="safetensors", tensors=tensors), name)
    except CheckpointError as error:
        kind = "asked" if "the file cannot say" in str(error) else "refused"
        return f"{kind}: {str(error).removeprefix(name + ': ')[:160]}"
    return f"read: {parsed.spec.title}"


def _state_dicts(every: int, part: int, n_parts: int) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield (name, state dict) of timm's models; those that cannot be built without memory are left out."""
    import timm

    noise = torch.empty(0)
    names = timm.list_models()[::every]
    for name in names[len(names) * (part - 1) // n_parts : len(names) * part // n_parts]:
        try:
            with torch.device("meta"):
                shapes = {
                    key: (tuple(one.shape), one.dtype) for key, one in timm.create_model(name).state_dict().items()
                }
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            print(f"          {name}: cannot be built without memory ({type(error).__name__})", flush=True)
            continue
        largest = max(torch.Size(shape).numel() for shape, _ in shapes.values()) + len(shapes)
        if largest > noise.numel():
            noise = torch.rand(largest)
        yield name, {key: _drawn(key, at, noise, *kept) for at, (key, kept) in enumerate(shapes.items())}


def _drawn(key: str, at: int, noise: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return noise that no other tensor of the network has: means on both sides of zero, all else above it."""
    if not dtype.is_floating_point:
        return torch.zeros(shape, dtype=dtype)
    drawn = noise[at : at + torch.Size(shape).numel()].view(shape)
    return drawn - 0.5 if key.endswith("running_mean") else drawn + 0.5 if len(shape) == 1 else drawn


if __name__ == "__main__":
    _library = implementations.prepare()
    sys.exit(main())
