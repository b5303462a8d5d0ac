"""Named tensors → DenseNetSpec. The architecture is found in widths and paths; names alone prove nothing.

structure      the way from tensors to a spec
leaves         one BN, convolution or linear layer each
dense_layers   leaves that form a dense layer or a transition
chain          their order, by channel arithmetic
body, heads    what stands where
decide         what shapes cannot say: each fact from the best witness
evidence       what BatchNorm statistics prove
conventions    families of implementations, known by their key names
attributes     what pickled modules and configurations state
probe          one input with its logits decides the rest
lookalikes     networks that look like a DenseNet and are none
"""
