"""ONNX graphs: read and written whole, where in a DenseNet a node stands, exact rewrites, known faults of targets.

onnx_file        an ONNX file and what it holds
edit             what rewrites share
layer_location   stem, block, transition or head, found in the structure
layer_names      names of dense layers that are the same in every graph of a network
channel_affine   what the values of an equalized graph stand for
passes/          one exact rewrite a file
lint/            one known fault of a target a file
"""
