"""Pickles without unpickling: a machine that builds inert values, and what is read from them.

torch_file    torch's zip and legacy files, plain pickles
unpickle      the machine
calls         what a pickle may call, by exact name
inert         what contents are kept as
rebuild, arrays   tensors and NumPy arrays
modules       whole pickled modules → state dict and attributes
search        which of the things in a checkpoint are the weights
contents_of   the result as `Contents`
"""
