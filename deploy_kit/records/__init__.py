"""The records that pass between stages, all frozen, and their JSON form.

A record holds facts; percentiles, verdicts and texts are properties derived from them. Units end a field's name
(`_ms`, `_mib`, `_db`, `_pp` for percentage points), and an empty text means "nothing to say".

artifacts         files that stages write: graphs and engines with their preprocessing, proofs and passports
densenet          the architecture of a DenseNet
results           results of passes and checks, and the report of a deployment
parity            results of a check: accuracy drop, flips, scores, consistency, diagnosis
measurements      results of a bench: environment, latency samples, speed-ups
layer_times       per-layer times of an engine, and where in the network the layers belong
readings          sensor readings of a machine while it is timed, energy, roofline
difference        point-by-point comparison of two forms of one network
mixed_precision   trials and decisions of a mixed-precision search
engine_table      text cells of a report's table of engines
first_page        what a reviewer asks first, as texts
report_html       a report as HTML for notebooks
codec             records to JSON and back, strictly
"""
