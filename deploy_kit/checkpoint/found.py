"""What a pickle held → `Contents`: weights, the facts its modules state, class names and preprocessing."""

from typing import Any

from deploy_kit.checkpoint import search
from deploy_kit.checkpoint.contents import Contents
from deploy_kit.checkpoint.limits import Budget


def contents_of(kind: str, data: Any, budget: Budget, state_key: str | None) -> Contents:
    """Search `data` for the weights and what is known of them.

    Args:
        kind: The container.
        data: Inert values.
        budget: Of the file.
        state_key: Which state dict to take where there are several.
    """
    found = search.find(data, budget, state_key=state_key)
    return Contents(kind=kind, tensors=found.tensors, remarks=found.remarks, attributes=found.attributes)
