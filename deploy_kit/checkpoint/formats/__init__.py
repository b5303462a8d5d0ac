"""Bytes → named tensors and what the file states. Untrusted input: nothing in a file is executed.

container          which format a file is, by its bytes
pickled/           what torch.save and pickle.dump write
keras_files/       .keras, .weights.h5 and .h5
torchscript        weights and the facts of its code
exported_program   torch.export archives
safetensors_file   safetensors with this program's metadata
paddle             Paddle's names and layouts → torch's
zip_formats        which of the formats that are zip archives; zip_archive opens one safely
foreign            files that are no checkpoint, and what they are
stated_graph       a forward pass that a file states → facts of the architecture; aten names torch's operators
limits             how much memory and how many steps a file may take
"""
