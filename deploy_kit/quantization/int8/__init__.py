"""INT8 for graphs that concatenate: which activations share one scale, and how each node reads and writes it.

From a float graph to a plan:

scale_groups        activations that must share one grid, and the nodes that make their values
effective_range     the part of an activation's range that its readers can tell apart
observation         one pass over the calibration images, kept in the store
range_selection     statistics → the range to encode, by method
equalize            scales every concatenated channel to [-1, 1], exactly in float
grids               ranges → scales and zero points; weights and biases → integers
plan                all of these in order
method_choice       method and rounding by calibration images held out: it makes and writes plans of its own

What a plan is changed by before it is written:

mixed_precision     layer groups that stay in float, and the activations that then need no grid
weight_rounding     weights → integers that keep outputs near: `input_patches` collects what a convolution reads,
                    `adaptive_rounding` chooses
saturate            BN + ReLU in front of an integer convolution: the quantizer clips (TensorRT)
row_equalization    one scale for all rows of a weight (TensorRT)
channel_moments     means and errors of activations, for bias correction

From a plan to a graph:

portable            the graph that ONNX Runtime and OpenVINO run fastest: uint8 throughout
symmetric           the graph that TensorRT takes: int8, zero point 0
explain             the plan in numbers, block by block
"""
