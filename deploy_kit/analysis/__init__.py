"""Questions asked beside the straight line: each reads what the stages made and answers, and makes no artifact.

inspection    what is this file
doctor        what can work on this machine, and what the rest lacks
compare       two bench runs against each other
diagnosis     why a checkpoint scores low
difference/   where two artifacts of one network part
sensitivity   what each layer group costs in accuracy and saves in time
budget        the fastest mix of INT8 and float within an accuracy budget
"""
