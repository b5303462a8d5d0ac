"""ONNX graphs: files, where in a DenseNet a node stands, exact rewrites, known faults of targets.

onnx_bounds      whether bytes are ONNX, and what a file from elsewhere may ask for, before native code works on it
onnx_file        reads and writes ONNX files, counts what they hold
edit             helpers of rewrites: constants, neighbors
layer_location   stem, dense block, transition or head of each node, found in the structure
layer_names      names of layer groups that are the same in every graph of a network
receptive_window the pixels of its input that a convolution reads
torch_graph      a graph computed by torch, node by node, also with gradients
channel_affine   per-channel scale and shift of an equalized graph, kept in its file
adoption/        files of other programs in the normal form that all stages take
passes/          one exact rewrite a file
lint/            one known fault of a target a file
"""
