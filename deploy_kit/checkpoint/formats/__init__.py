"""Bytes → named tensors and what the file states. Untrusted input: nothing in a file is executed.

container          which format a file is, by its bytes
contents           the one record that every reader gives
pickled/           what torch.save and pickle.dump write
keras_files/       .keras, .weights.h5 and .h5
torchscript        weights and the facts of its code
exported_program   torch.export archives
safetensors_file, paddle, zip_formats, foreign
stated_graph       a forward pass that a file states → facts of the architecture; aten names torch's operators
limits             how much a file may ask for
"""
