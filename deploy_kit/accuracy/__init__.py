"""How far the outputs of an engine are from the checkpoint's: on tensors, on labels, and with itself.

metrics               distances between two sets of logits
paired                two predictors on the same images: the drop, its interval, McNemar's test
scores/               what labels say: top-k, recall by class, AUROC, confidence, flips
consistency           whether an engine agrees with itself
preprocess_variants   other ways to prepare the same images

Arithmetic only: no module here opens a file or runs an engine.
"""
