"""Named tensors → DenseNetSpec. The architecture is found in widths and paths; names alone prove nothing.

structure          the way from tensors to a spec
leaves             one BN, convolution or linear layer each
paths              module paths: what belongs together, and in which order it counts
dense_layers       leaves that form a dense layer, a transition or a stem convolution
chain              their order, by channel arithmetic
body, heads        which leaf serves where
decide             what shapes cannot say: each fact from the best source
evidence           what BatchNorm statistics show
conventions        families of implementations, known by their key names
attributes         what the modules of a pickled network state
canonical_tensors  the file's tensors under the names that the rebuilt network loads
probe              one input with its logits decides what is left open
input_normalization  a mean and a std that the file carries
lookalikes         networks that look like a DenseNet and are none
"""
