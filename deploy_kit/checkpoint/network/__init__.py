"""DenseNetSpec → something that computes: a torch module, the same as equations, and ONNX.

densenet_module   the torch module
equations         the same function on the file's own tensors: the second opinion
to_onnx           by torch's exporters
map_sizes         sizes of maps and of the input
paper_table       the network as the paper's Table 1 shows one
"""
