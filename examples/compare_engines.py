"""Which engine is faster here? Four engines measured in turns, with an interval on each ratio."""

import deploy_kit

exported = deploy_kit.export("bundled:densenet_bc40_fmnist", calibration="bundled:fashion-mnist-512")
simplified = deploy_kit.simplify(exported)
int8 = deploy_kit.quantize(simplified, "int8")

engines = [deploy_kit.build(graph, name) for graph in (simplified, int8) for name in ("onnxruntime", "openvino")]
for engine in engines:
    assert engine.proof is not None
    print(f"{engine.label} computes in {', '.join(f'{n} {op} {dtype}' for op, dtype, n in engine.proof.counts)}")

# On a busy machine latencies are not valid, and an error; allow_invalid=True returns them marked.
measured = deploy_kit.bench(engines, rounds=6, duration=0.5, warmup=0.25, allow_invalid=True)
baseline = measured.measurements[0]
for candidate in measured.measurements:
    faster = deploy_kit.speed_up(baseline, candidate)
    verdict = "the baseline" if candidate is baseline or faster is None else faster.verdict
    print(f"{candidate.label}: {candidate.percentile_ms(50):.3f} ms, {candidate.images_per_s:.0f} images/s, {verdict}")
for why in measured.invalid:
    print(f"not valid: {why}")
