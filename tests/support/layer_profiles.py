"""What several tests of breakdown share."""

from deploy_kit.records.layer_times import LayerProfile, ProfiledLayer
from deploy_kit.records.measurements import LoadCost

COST = LoadCost(load_ms=412.6, first_ms=31.25, memory_before_mib=53, peak_memory_mib=157)


def layer(region: str, kind: str, ms: float) -> ProfiledLayer:
    return ProfiledLayer(name="n", op="o", kind=kind, region=region, total_ms=2 * ms, mean_ms=ms + 1, median_ms=ms)


PROFILE = LayerProfile(
    source="a profiler",
    runs=2,
    run_ms=9.0,
    layers=(
        layer("stem", "conv", 1),
        layer("block 1", "conv", 5),
        layer("block 1", "concat", 1.5),
        layer("unknown", "copy", 0.5),
    ),
)
