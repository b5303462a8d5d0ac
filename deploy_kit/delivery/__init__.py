"""Bundles: a proved engine with all that is needed to run, explain and verify it on a machine without deploykit.

manifest       what a bundle says of itself: the records, and how they are read
contents       a folder or zip that somebody gave us → its files, within bounds and never executed
runtimes/      what a bundle needs of each engine: its program, its versions, Triton's name for it
files/         what is copied into a bundle as it is: predict.py, verify.py, the C++ programs
golden         a few real images, and what the engine answers to them
model_card     README.md of a bundle
triton         a model repository for Triton
writer         all of it → a folder or a zip, the same bytes each time
signature      who packed it: a key of the user's own
verification   is this bundle what was packed, and does it answer so here?
predictor      a bundle → names and scores for an image
"""
