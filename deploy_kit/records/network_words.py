"""Closed sets of words for the parts of a network, which records, recipes and the command line share."""

from typing import Literal

StemPool = Literal["none", "max", "avg", "blur"]
TransitionPool = Literal["avg", "max", "none"]
HeadPool = Literal["avg", "max", "max_avg", "avg_max", "avg_max_mean", "flatten"]
Order = Literal["norm_first", "activation_first"]
FeatureNorm = Literal["none", "l2"]
Activation = Literal["relu", "leaky_relu", "elu", "silu", "gelu", "none"]
HeadActivation = Literal["none", "sigmoid", "softmax", "log_softmax"]
Upsampling = Literal["nearest", "bilinear"]
SkipOrder = Literal["up_first", "skip_first"]
UpCrop = Literal["start", "end"]
Merge = Literal["add", "cat"]
