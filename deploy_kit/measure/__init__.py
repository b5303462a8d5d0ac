"""Latency of engines that are measured in turns, the state of the machine meanwhile, and what the numbers are worth.

race             engines in turns, each in a worker of its own
stopwatch        warm-up and timed turns of a callable; runs in the worker
scenarios/       how runs are issued: closed loop, MLPerf's LoadGen
latency          statistics of samples: ratios with intervals, drift
gauges/          sensors of a machine, one file each; run in a worker
monitor          reads the gauges from a worker of its own while engines are timed
telemetry        conditions, energy and roofline of each engine of a race
validity         rules that decide whether numbers may be used
energy           energy from readings of counters and powers
roofline         estimate of the least time that a graph could take
hardware_peaks   peak rates of known GPUs, and of processors as measured
layer_profile    an engine's own layer times, by region of the network
"""
