"""Train a DenseNet-121 on Fashion-MNIST at 64×64 px, the second net of the accuracy page.

Images are scaled (bilinear), repeated to three channels and normalized as ImageNet's. The file is torch users':
a dict with torchvision's names below ``state_dict``, and nothing that says how its images are prepared.

    python -m models.train_densenet121 --epochs 5 --out densenet121_fmnist64.pth.tar
"""

import torch
from torch import Tensor, nn

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv
from models.training import Schedule, parser, splits, train

SIDE = 64
MEAN = torch.tensor((0.485, 0.456, 0.406))[:, None, None]
STD = torch.tensor((0.229, 0.224, 0.225))[:, None, None]
SPEC = DenseNetSpec(
    in_channels=3,
    stem=(StemConv(channels=64, kernel=(7, 7), stride=(2, 2)),),
    stem_pool="max",
    blocks=tuple(DenseBlock(layers=n, growth=32, bottleneck=128) for n in (6, 12, 24, 16)),
    transitions=(128, 256, 512),
    heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=10),)),),
)


def prepared(images: Tensor) -> Tensor:
    """Scale, repeat and normalize images (N, 1, 28, 28) in 0..1: (N, 3, 64, 64)."""
    large = nn.functional.interpolate(images, (SIDE, SIDE), mode="bilinear", align_corners=False)
    return (large.expand(-1, 3, -1, -1) - MEAN) / STD


def main() -> None:
    options = parser(__doc__, 5, "densenet121_fmnist64.pth.tar").parse_args()
    torch.manual_seed(options.seed)
    model = DenseNet(SPEC)
    schedule = Schedule(epochs=options.epochs, peak=0.1, seed=options.seed)
    score = train(model, *splits(options.data, options.images), prepared, schedule)
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    torch.save({"epoch": options.epochs, "state_dict": state, "test_top1": score, "arch": "densenet121"}, options.out)


if __name__ == "__main__":
    main()
