"""Train the demo checkpoint: a DenseNet-BC (k = 12, depth 40) on Fashion-MNIST.

Random shifts of ±1 px and horizontal flips. The weights of the last epoch are kept, whatever they score: the test
images choose nothing.

    python -m models.train_demo --epochs 14 --out models/densenet_bc40_fmnist.safetensors
"""

import json

import torch
from safetensors.torch import save_file
from torch import Tensor

from deploy_kit.checkpoint.network.densenet_module import DenseNet
from deploy_kit.records.densenet import DenseBlock, DenseNetSpec, Head, HeadLayer, StemConv
from models.training import MEAN, STD, Schedule, parser, splits, train

SPEC = DenseNetSpec(
    in_channels=1,
    stem=(StemConv(channels=24, kernel=(3, 3), stride=(1, 1)),),
    stem_pool="max",
    blocks=(DenseBlock(layers=6, growth=12, bottleneck=48),) * 3,
    transitions=(48, 60),
    heads=(Head(name="logits", layers=(HeadLayer(kind="linear", channels=10),)),),
)


def prepared(images: Tensor) -> Tensor:
    """Normalize images (N, 1, 28, 28) in 0..1."""
    return (images - MEAN) / STD


def main() -> None:
    options = parser(__doc__, 14, "models/densenet_bc40_fmnist.safetensors").parse_args()
    torch.manual_seed(options.seed)
    model = DenseNet(SPEC)
    schedule = Schedule(epochs=options.epochs, peak=0.1, seed=options.seed)
    score = train(model, *splits(options.data, options.images), prepared, schedule)
    facts = {"stem_stride": SPEC.stem[0].stride[0], "stem_pool": SPEC.stem_pool, "eps": SPEC.eps}
    preprocess = {"height": 28, "width": 28, "color": "gray", "mean": [MEAN], "std": [STD]}
    metadata = {
        "deploykit.densenet": json.dumps(facts),
        "deploykit.preprocess": json.dumps(preprocess),
        "test_top1": f"{score:.4f}",
        "seed": str(options.seed),
        "epochs": str(options.epochs),
    }
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, options.out, metadata)


if __name__ == "__main__":
    main()
