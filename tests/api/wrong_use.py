"""A wrong use of the API, for `make lint`: mypy fails where it does not notice, since its ignore is then unused."""

import deploy_kit

deploy_kit.bench(deploy_kit.export("best.pth"))  # type: ignore[arg-type]
