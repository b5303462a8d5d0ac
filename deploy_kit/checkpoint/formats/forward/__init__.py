"""Forward passes that files state, computed operator by operator: the witness of what is exported.

Nothing here knows what a DenseNet is: the file's own graph is followed in its own order, with its own options, and what
it gives is compared with the exported network. No code of a file is run; operators are looked up by name in a list.

operators         torch's operators that graphs may use, within a budget
torchscript_code  TorchScript's code, statement by statement, branches and loops included
exported_graph    a torch.export graph, node by node
keras_graph       a Keras config, layer by layer
"""
