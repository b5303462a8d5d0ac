"""F, held against the divergence of a network whose layer was disturbed, and against its whole Jacobian."""

import numpy as np
import pytest
import torch
from dense_graphs import Sketch

from deploy_kit.graph.torch_graph import TorchGraph
from deploy_kit.slimming import sensitivity

N = 24


def network(*, softmax: bool = False) -> tuple[Sketch, TorchGraph]:
    sketch = Sketch(pixels=(4, 4))
    output = sketch.network()
    if softmax:
        output = sketch.node("Softmax", output, axis=1)
    return sketch, TorchGraph(sketch.model(output))


def test_it_is_the_fisher_information_of_the_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch, graph = network()
    layer = nodes_of(graph)[-1]
    x = sketch.images(N)
    monkeypatch.setattr(sensitivity, "N_DRAWS", 400)

    (found,) = sensitivity.sensitivities(graph, (layer,), iter([x]), lambda done: None)

    wanted = np.zeros_like(found.numpy())
    for image in x:
        values = {"x": torch.from_numpy(image[None]).requires_grad_()}
        graph.run(values, graph.nodes)
        logits, y = values[graph.output], values[str(layer.outputs[0].name)]
        rows = torch.stack(
            [torch.autograd.grad(logits[0, k], y, retain_graph=True)[0][0].flatten(1) for k in range(logits.shape[1])]
        )  # (K, O, pixels)
        p = torch.softmax(logits[0].detach(), -1)
        information = torch.diag(p) - torch.outer(p, p)
        wanted += torch.einsum("kop,kl,lqp->oq", rows, information, rows).detach().numpy() / N
    assert np.abs(found.numpy() - wanted).max() < 0.1 * np.abs(wanted).max()


def test_half_its_trace_predicts_the_divergence_of_a_disturbed_layer() -> None:
    sketch, graph = network()
    layer = nodes_of(graph)[-1]
    x = sketch.images(256)
    (found,) = sensitivity.sensitivities(graph, (layer,), iter([x]), lambda done: None)
    values = {"x": torch.from_numpy(x)}
    at = graph.nodes.index(layer)
    graph.run(values, graph.nodes)
    wanted, name = torch.log_softmax(values[graph.output], -1), str(layer.outputs[0].name)
    noise = 0.05 * torch.randn(values[name].shape, generator=torch.Generator().manual_seed(1))

    values[name] = values[name] + noise
    graph.run(values, graph.nodes[at + 1 :])

    moved = torch.log_softmax(values[graph.output], -1)
    divergence = float((wanted.exp() * (wanted - moved)).sum(-1).mean())
    predicted = 0.5 * 0.05**2 * float(found.trace())
    assert predicted == pytest.approx(divergence, rel=0.2)


def test_a_softmax_at_the_end_changes_nothing() -> None:
    sketch, graph = network()
    _, with_softmax = network(softmax=True)
    x = sketch.images(N)

    plain, same = (
        sensitivity.sensitivities(one, (nodes_of(one)[-1],), iter([x]), lambda done: None)[0]
        for one in (graph, with_softmax)
    )

    assert torch.allclose(plain, same)


def test_a_single_logit_has_the_information_of_its_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    sketch = Sketch(pixels=(4, 4))
    graph = TorchGraph(sketch.model(sketch.head(sketch.norm(sketch.block(sketch.stem())), classes=1)))
    layer, x = nodes_of(graph)[-1], sketch.images(N)
    monkeypatch.setattr(sensitivity, "N_DRAWS", 400)

    (found,) = sensitivity.sensitivities(graph, (layer,), iter([x]), lambda done: None)

    values = {"x": torch.from_numpy(x).requires_grad_()}
    graph.run(values, graph.nodes)
    (gradient,) = torch.autograd.grad(values[graph.output].sum(), values[str(layer.outputs[0].name)])
    share = torch.sigmoid(values[graph.output].detach())[:, 0]
    rows = gradient.flatten(2)
    wanted = torch.einsum("n,nop,nqp->oq", share * (1 - share), rows, rows).numpy() / N
    assert np.abs(found.numpy() - wanted).max() < 0.1 * np.abs(wanted).max()


def nodes_of(graph: TorchGraph) -> list:  # type: ignore[type-arg]
    return [node for node in graph.nodes if node.op_type == "Conv"]
