"""Float graph → a graph that carries its precision.

schemes/   one scheme a file: fp32, fp16, bf16, INT8 planned here, INT8 by stock quantizers
int8/      INT8 planned from a DenseNet's structure, and written for each kind of target
ranges/    statistics of activations, per channel, in one streamed pass
"""
