"""F: what an error at a layer's output costs in the answers, without labels.

Errors e at the pixels of a layer's output y move the logits by Σ J e, and the softmax p away from itself by

    KL(p ‖ q) ≈ ½ δᵀ (diag(p) − p pᵀ) δ,    δ = Σ_pixels J e

With v = √p ∘ ξ − p (√pᵀξ), ξ normal, E[v vᵀ] = diag(p) − p pᵀ: the Fisher information of the softmax. A single logit
has that of its sigmoid s instead, v = √(s(1 − s)) ξ. So, with
g = ∂(vᵀ logits)/∂y, and errors of different pixels taken as independent,

    KL ≈ ½ tr(F E[e eᵀ]),    F = E[ Σ_pixels g gᵀ ]

the expectation over images and draws of ξ. It makes layers comparable; within a layer it weighs the output channels.
"""

from collections.abc import Callable, Iterator

import numpy as np
import onnx_ir as ir
import torch

from deploy_kit.base.errors import SlimError
from deploy_kit.graph.torch_graph import TorchGraph

N_IMAGES = 256
"""Images of which gradients are taken."""

N_DRAWS = 1
NOT_FINITE = "check the preprocessing (mean, std) and the checkpoint"
_SEED = 23


def sensitivities(
    graph: TorchGraph, layers: tuple[ir.Node, ...], batches: Iterator[np.ndarray], done: Callable[[int], None]
) -> list[torch.Tensor]:
    """Measure F of each layer's output.

    Args:
        graph: The network; its output are logits, or their softmax.
        layers: Nodes whose outputs (N, O, …) are meant.
        batches: (N, C, …) float32 images.
        done: Called with the number of images done.

    Returns:
        (O, O) float64 for each layer.

    Raises:
        SlimError: A gradient is not finite; the first layer of those is named.
    """
    generator = torch.Generator().manual_seed(_SEED)
    names = [str(node.outputs[0].name) for node in layers]
    totals: list[torch.Tensor | None] = [None] * len(layers)
    nodes, output = _up_to_logits(graph)
    n_images = 0
    for batch in batches:
        values = {graph.input: torch.from_numpy(batch).requires_grad_()}
        graph.run(values, nodes)
        logits = values[output]
        targets = [values[name] for name in names]
        del values
        for draw in range(N_DRAWS):
            v = _drawn(logits.detach(), generator)
            found = torch.autograd.grad((v * logits).sum(), targets, retain_graph=draw + 1 < N_DRAWS)
            for index, gradient in enumerate(found):
                rows = gradient.flatten(2).permute(0, 2, 1).reshape(-1, gradient.shape[1])
                part = (rows.T @ rows).double() / N_DRAWS
                before = totals[index]
                totals[index] = part if before is None else before + part
        n_images += len(batch)
        done(n_images)
    sums = [total / n_images for total in totals if total is not None]
    for name, total in zip(names, sums, strict=True):
        if not torch.isfinite(total).all():
            raise SlimError(f"slim: the gradients at '{name}' are not finite on these images", hint=NOT_FINITE)
    return sums


def _drawn(logits: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Draw v (N, K) for logits (N, K)."""
    noise = torch.randn(logits.shape, generator=generator)
    if logits.shape[-1] == 1:
        share = torch.sigmoid(logits)
        return (share * (1 - share)).sqrt() * noise
    root = torch.softmax(logits, -1).sqrt()
    return root * noise - root * root * (root * noise).sum(-1, keepdim=True)


def _up_to_logits(graph: TorchGraph) -> tuple[tuple[ir.Node, ...], str]:
    """Return the nodes that make the logits, and their name: without a softmax at the end."""
    last = next(node for node in graph.nodes if node.outputs[0].name == graph.output)
    if last.op_type != "Softmax" or last.inputs[0] is None:
        return graph.nodes, graph.output
    return tuple(node for node in graph.nodes if node is not last), str(last.inputs[0].name)
