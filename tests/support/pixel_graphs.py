"""Small graphs that take pixels, and frames for them."""

import numpy as np
import onnx_ir as ir
import tiny_graphs

from deploy_kit.graph import pixel_input
from deploy_kit.records.artifacts import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDES = (10, 12)


def preprocess(color: str = "rgb") -> Preprocess:
    """Give ImageNet's preprocessing, or another one for gray images."""
    gray = color == "gray"
    return Preprocess(
        height=SIDES[0], width=SIDES[1], color=color, mean=(0.286,) if gray else MEAN, std=(0.353,) if gray else STD
    )  # fmt: skip


def frames(n: int = 2, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Draw frames (n, H, W, C) uint8; the corners are black and white, where padding matters most."""
    drawn = np.random.default_rng(seed).integers(0, 256, (n, *SIDES, channels), np.uint8)
    drawn[:, :3, :3], drawn[:, -3:, -3:] = 0, 255
    return drawn


def network(color: str = "rgb", attributes: str = "pads=[1,1,1,1], strides=[2,2]") -> ir.Model:
    """Give a convolution and a ReLU that take the normalized tensor."""
    channels, draw = (1 if color == "gray" else 3), np.random.default_rng(1)
    height, width = SIDES
    return tiny_graphs.parse(
        f"g (float[N,{channels},{height},{width}] x) => (float[N,4,a,b] y) "
        f"{{ c = Conv<{attributes}>(x, w, b) y = Relu(c) }}",
        w=draw.standard_normal((4, channels, 3, 3)),
        b=draw.standard_normal(4),
    )


def taking_pixels(color: str = "rgb", attributes: str = "pads=[1,1,1,1], strides=[2,2]") -> ir.Model:
    """Give the same network with its normalization inside."""
    model = network(color, attributes)
    pixel_input.take_pixels(model, preprocess(color))
    return model
