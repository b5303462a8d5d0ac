"""INT8 for graphs that concatenate: which activations share one scale, and how each node reads and writes it.

groups      float graph → activations that must share a grid, and where each gets its values from
equalize    scales every concatenated channel to [-1, 1], exactly in float
grids       ranges → scales and zero points; weights and biases → integers
keep        layer groups that stay in float: which activations then need no grid
rounding    weights → integers that keep outputs near: windows and patches say what is read, descent chooses
portable    writes the graph that ONNX Runtime and OpenVINO run fastest: uint8 throughout
symmetric   writes the graph that TensorRT takes: int8, zero point 0
"""
