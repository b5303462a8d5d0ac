"""The stages: one verb a file, each a function from records to a record; none imports another.

export → simplify → quantize → build → check → bench → report
"""
