"""From a checkpoint to checked and measured engines in one call, and what the report says of each."""

import deploy_kit

report = deploy_kit.deploy(
    "bundled:densenet_bc40_fmnist",  # your file; where it does not say how images are prepared: input=, mean=, std=
    engines=["onnxruntime"],  # compare_engines.py takes several
    precisions=["fp32", "int8"],
    calibration="bundled:fashion-mnist-512",  # a folder of a few hundred training images
    images="bundled:fashion-mnist-10000",  # the images to check on: none of them may calibrate
    out="reports",
)

print(f"{report.checkpoint.title}, {report.checkpoint.parameters:,} parameters, top-1 {report.answers.top1:.2%}")
for row in report.rows:
    print(f"{row.label}: {row.verdict}")
    if isinstance(row.parity, deploy_kit.ParityReport) and row.parity.drop is not None:
        drop = row.parity.drop
        print(f"  lost {drop.points:+.2f} points of top-1, 95 % interval {drop.low:+.2f} to {drop.high:+.2f}")
    if isinstance(row.measurement, deploy_kit.Measurement):
        print(f"  median {row.measurement.percentile_ms(50):.3f} ms")
    if row.speed_up is not None:
        print(f"  {row.speed_up.verdict} against {row.speed_up.baseline}")
for why in report.invalid:
    print(f"not a valid latency: {why}")
print("every limit is kept" if report.passed else "a limit is not kept")
