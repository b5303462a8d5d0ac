"""A small DenseNet in plain torch, independent of the package, and every way to write it to a file."""

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional


class TinyLayer(nn.Module):
    """BN-act-1×1-BN-act-3×3 and a concatenation, new features first or last."""

    def __init__(self, width: int, growth: int, *, prepend: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(width, eps=1e-3)
        self.conv1 = nn.Conv2d(width, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth, eps=1e-3)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)
        self.prepend, self.activation = prepend, activation

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(self.activation(self.bn2(self.conv1(self.activation(self.bn1(x))))))
        return torch.cat([new, x] if self.prepend else [x, new], 1)


class TinyDenseNet(nn.Module):
    """Two blocks of two layers; options set what shapes cannot say."""

    def __init__(
        self,
        *,
        prepend: bool = False,
        activation: Callable[[Tensor], Tensor] = functional.relu,
        transition_relu: bool = True,
        transition_pool: Callable[[Tensor, int], Tensor] = functional.avg_pool2d,
        final_relu: bool = True,
        stem_pool: str = "max",
        head_pool: str = "avg",
        output: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        options = {"prepend": prepend, "activation": activation}
        self.stem = nn.Conv2d(3, 8, 7, 2, 3, bias=False)
        self.bn0 = nn.BatchNorm2d(8, eps=1e-3)
        self.dense1 = nn.Sequential(TinyLayer(8, 4, **options), TinyLayer(12, 4, **options))
        self.trans_bn = nn.BatchNorm2d(16, eps=1e-3)
        self.trans_conv = nn.Conv2d(16, 8, 1, bias=False)
        self.dense2 = nn.Sequential(TinyLayer(8, 4, **options), TinyLayer(12, 4, **options))
        self.bn = nn.BatchNorm2d(16, eps=1e-3)
        self.fc = nn.Linear(16 * {"max_avg": 2, "flatten": 64}.get(head_pool, 1), 5)
        self.transition_relu, self.transition_pool, self.final_relu = transition_relu, transition_pool, final_relu
        self.stem_pool, self.head_pool, self.output = stem_pool, head_pool, output

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn0(self.stem(x)))
        if self.stem_pool == "max":
            x = functional.max_pool2d(x, 3, 2, 1)
        elif self.stem_pool == "avg":
            x = functional.avg_pool2d(x, 3, 2, 1)
        x = self.trans_bn(self.dense1(x))
        x = self.trans_conv(functional.relu(x) if self.transition_relu else x)
        x = self.bn(self.dense2(self.transition_pool(x, 2)))
        x = self.fc(self._pooled(functional.relu(x) if self.final_relu else x))
        return x if self.output is None else self.output(x)

    def _pooled(self, x: Tensor) -> Tensor:
        maximum, mean = functional.adaptive_max_pool2d(x, 1), functional.adaptive_avg_pool2d(x, 1)
        return {
            "avg": lambda: mean.flatten(1),
            "mean": lambda: x.mean([2, 3]),
            "view": lambda: functional.avg_pool2d(x, x.shape[-1]).view(x.size(0), -1),
            "max": lambda: maximum.flatten(1),
            "max_avg": lambda: torch.cat([maximum, mean], 1).flatten(1),
            "flatten": lambda: x.flatten(1),
        }[self.head_pool]()


def tiny_net(**options: Any) -> TinyDenseNet:
    torch.manual_seed(0)
    net = TinyDenseNet(**options).eval().requires_grad_(False)
    for name, tensor in net.state_dict().items():
        if "bn" in name and tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return net


def weights(**options: Any) -> dict[str, Tensor]:
    return dict(tiny_net(**options).state_dict())


def save_zip(data: Any, path: Path) -> None:
    torch.save(data, path)


def save_legacy(data: Any, path: Path) -> None:
    torch.save(data, path, _use_new_zipfile_serialization=False)


def save_pickle(data: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(data))


def save_safetensors(data: dict[str, Tensor], path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in data.items()}, path)


TORCH_SAVERS = {"torch zip": save_zip, "torch legacy": save_legacy}
PICKLE_SAVERS = TORCH_SAVERS | {"pickle": save_pickle}
SAVERS = PICKLE_SAVERS | {"safetensors": save_safetensors}


def bytes_of(saver: Callable[[Any, Path], None], data: Any, folder: Path) -> bytes:
    saver(data, folder / "made")
    return (folder / "made").read_bytes()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zip_bytes(members: dict[str, bytes], *, pack: int = 0) -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", pack) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


class Payload:
    """Calls `function` with `arguments` when it is unpickled, as a hostile file does."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def payloads(marker: Path) -> dict[str, Payload]:
    return {"os.system": Payload(os.system, f"touch '{marker}'"), "open": Payload(open, str(marker), "w")}
