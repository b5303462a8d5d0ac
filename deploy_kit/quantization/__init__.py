"""Float graph → a graph that carries its precision.

schemes/   one scheme a file: fp16, bf16, INT8 of deploykit's own, INT8 of stock quantizers
int8/      INT8 planned from a DenseNet's structure, and written for each kind of target
ranges/    what activations are like, per channel, in one streamed pass
"""
