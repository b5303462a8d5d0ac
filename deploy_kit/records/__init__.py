"""The nouns that pass between stages, all frozen, and their JSON.

artifacts         what is made: graphs, engines, preprocessing, passports
densenet          a DenseNet as a record
results           what is found out: passes, parity, the report
parity            what a check finds
measurements      what a bench finds
layer_times       what an engine says of its layers
readings          what a machine says of itself while it is timed
difference        where two artifacts part
mixed_precision   what each choice of float layers gave
codec             records to JSON and back, strictly
"""
