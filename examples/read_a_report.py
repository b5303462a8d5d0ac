"""What a report.json holds: verdicts with their reasons, the way from checkpoint to engine, the machine."""

import sys

import deploy_kit

folder = sys.argv[1] if len(sys.argv) > 1 else "reports/densenet_bc40_fmnist"  # deploy_a_checkpoint.py's
report = deploy_kit.load_report(folder)

print(f"{report.recipe}, made {report.when} by deploykit {report.version} on {report.environment.cpu}")
print(f"checkpoint {report.checkpoint.name}, sha256 {report.checkpoint.sha256[:12]}")

graphs = {graph.sha256: graph for graph in report.lineage}
for row in report.rows:
    if row.artifact is None:
        print(f"{row.label}: {row.verdict}")
        continue
    way, parent = [row.label], row.artifact.parent
    while parent in graphs:
        way.append(graphs[parent].name)
        parent = graphs[parent].parent
    print(f"{' ← '.join(way)} ← checkpoint: {row.verdict}")
    for what, value in row.artifact.made_by.rows:
        print(f"    {what}: {value}")

fired = [one for one in report.passes if one.fired]
print(f"passes that fired: {', '.join(f'{one.name} {one.fired}×' for one in fired)}")
for stage in report.times:
    print(f"{stage.stage:9} {stage.seconds:7.1f} s  {stage.name}{' (from the store)' if stage.reused else ''}")
