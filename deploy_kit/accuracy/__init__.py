"""Measures of how far an engine's outputs are from the checkpoint's: on logits, on labels, and between runs.

metrics               distances between two sets of logits
paired                statistics of two predictors on the same images: the drop, its interval, McNemar's test
scores/               scores on labelled images: top-k, recall by class, AUROC, calibration error, flips
consistency           whether an engine gives the same output for the same image in different runs
preprocess_variants   other ways to preprocess the same images

Arithmetic only: no module here opens a file or runs an engine.
"""
