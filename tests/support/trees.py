"""Trees to read gauges from: recorded ones (trees/README.md), and small ones written for a test."""

from pathlib import Path

from deploy_kit.measure.gauges import GaugeScope

HERE = Path(__file__).parent / "trees"


def recorded(name: str) -> GaugeScope:
    """Give the place of a recorded tree."""
    return GaugeScope(root=HERE / name)


def written(root: Path, files: dict[str, str]) -> GaugeScope:
    """Write a tree and give its place."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return GaugeScope(root=root)
