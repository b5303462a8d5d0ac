"""Pickles without unpickling: a machine that builds inert values, and what is read from them.

torch_file         torch's zip and legacy files, plain pickles
unpickle           the machine
allowed_calls      what a pickle may call, by exact name
inert_values       what contents are kept as
torch_tensors, numpy_arrays   storages, tensors and arrays
pickled_modules    whole pickled modules → state dict and attributes
weight_search      which of the things in a checkpoint are the weights
pickled_contents   the result as `Contents`

Why not `torch.load(weights_only=True)`? Measured with torch 2.13 on checkpoints of published training code: of the 45
that `torch.save` wrote it refuses six, and all six are read here.

- bamos's densenet.pytorch saves the whole module, of a class that is not importable elsewhere; so do kuangliu's
  pytorch-cifar and torchxrayvision. To allow a class is to import it and to run its ``__setstate__``.
- hysts's pytorch_image_classification keeps its best accuracy, a NumPy scalar, beside the weights (two files).
- timm's trainer keeps its ``argparse.Namespace`` beside the weights.

It reads no plain pickle of later protocols either (Paddle's ``.pdparams``), and what it refuses cannot state anything:
the attributes of a whole module give epsilon, strides and pools.

A state dict takes the same way, because torch reads without bounds. 350 bytes that ask for a ``bytearray`` of 2 GiB get
it. A tuple nested 24 deep as a key, 446 bytes, takes 0.2 s to hash, and each further level doubles that. A record is
unpacked whatever it unpacks to: 1 GiB of 1 MB. A flipped bit is loaded, for no CRC is compared. Before torch 2.10 the
restricted unpickler itself could be made to corrupt memory (GHSA-63cw-57p8-fm3p), and 2.9 is supported. Here bytes and
steps have a budget, keys are cheap to hash, CRCs are compared, and nothing of torch is looked up by a name in the file.
"""
