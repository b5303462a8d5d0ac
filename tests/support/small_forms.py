"""The small DenseNet, exported and simplified once a session. A plugin: `pytest_plugins = ["small_forms"]`."""

from pathlib import Path

import pytest
from planted import SPEC, Forms
from stage_inputs import run_of
from tiny_densenet import save_tiny, tiny_model, tiny_recipe

from deploy_kit import pipeline, recipe
from deploy_kit.devices import links
from deploy_kit.store import Store


@pytest.fixture(scope="session")
def forms(tmp_path_factory: pytest.TempPathFactory) -> Forms:
    folder = tmp_path_factory.mktemp("forms")
    base = tiny_recipe(folder).model_dump(mode="json", exclude_none=True)
    base["source"]["checkpoint"] = str(save_tiny(folder / "small.safetensors", tiny_model(SPEC)))
    base["export"]["exporter"] = "dynamo"  # which leaves every BN to be found
    base["simplify"]["passes"] = recipe.load_recipe("default").simplify.passes
    return simplified_forms(folder, recipe.parse_recipe(base))


def simplified_forms(folder: Path, of: recipe.Recipe) -> Forms:
    """Export and simplify the checkpoint of a recipe."""
    made = Forms(folder, of)
    store = Store(folder / "line")
    with links.connect_device(links.LOCAL) as connection:
        run = run_of(made.recipe, store, connection)
        exported = pipeline.exported(run)
        made.made = {
            "exported": store.path(exported.onnx), "simplified": store.path(pipeline.simplified(run, exported).onnx)
        }  # fmt: skip
    return made
