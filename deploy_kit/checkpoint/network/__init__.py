"""DenseNetSpec → something that computes: a torch module, the same as equations, and ONNX.

densenet_module   the torch module
dense_modules     its parts: dense layers and blocks, transitions, pools
decoder_module    what makes a map of classes of it
equations         the same function on the file's own tensors: the second opinion
torch_logits      the module's logits on preprocessed images
to_onnx           the ONNX file, by torch's exporters
map_sizes         sizes of maps and of the input
paper_table       the network laid out as in the paper's Table 1
"""
