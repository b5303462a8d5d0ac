"""A mix of precisions as a search finds it, for tests that show one."""

from deploy_kit.records.mixed_precision import Decision, Mix

KEPT = Decision(
    group="denseblock1.denselayer1", precision="fp32", sqnr_db=12.34, kl=0.0123, saved_ms=0.0456, macs=1_200_000,
    why="the budget does not hold with it in int8",
)  # fmt: skip
UNTRIED = Decision(group="stem", precision="int8", sqnr_db=None, kl=None, saved_ms=None, macs=200_000, why="")
MIX = Mix(
    artifact="a" * 64, target="onnxruntime", evaluated_in="onnxruntime", max_drop_pp=0.3, judged_by="top-1",
    images="tune.npz", n=2000, n_sensitivity=256, drop_pp=0.05, upper_pp=0.21, int8_drop_pp=1.5, int8_upper_pp=2.4,
    estimated_ms=0.669, int8_ms=0.643, float_ms=0.755, times_from="a profiler", trials=34,
    decisions=(UNTRIED, KEPT), found=True,
)  # fmt: skip
