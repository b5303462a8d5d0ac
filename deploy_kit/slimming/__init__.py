"""Fewer multiply-accumulates: channels between two convolutions removed, what follows refitted. No labels, no training.

bottlenecks    where channels can go: convolution → activation → convolution, with one reader each
sensitivity    F: what an error at a layer's output costs in the answers
group_obs      which channels go first, and what each costs: optimal brain surgeon by groups of taps
curves         both for every layer, from one pass over the images
prices         what a layer costs on an engine, from measured times
allocation     how many channels each layer keeps, for a number of multiply-accumulates
ridge          weights that bring a layer's output back to the original's
compensation   the walk from front to back that refits every layer behind a removal
distillation   further training to the original's answers, where it is asked for
slices         whole layers taken out of a concatenation: who reads them, and the exact cut
surgery        the same channels cut out of the ONNX graph

[docs/slimming.md](../../docs/slimming.md) says what it gains and costs.
"""
