"""The Python API: the steps of the command line as functions, named and parameterized as the commands are.

graphs     export, simplify, quantize
engines    build, check, bench, speed_up
slimming   slim: fewer multiply-accumulates within an accuracy budget
mixing     find_mix: INT8 and float within an accuracy budget
bundles    pack, verify, load
line       deploy, and the recipes and reports around it
_step      what every call opens: the store, the devices, the progress
_notebook  how a notebook shows a check and a bench

``import deploy_kit`` exposes all of it; each function opens what it needs and keeps its results where the command line
keeps them, so that either finds what the other made.
"""

from deploy_kit.api import _notebook
from deploy_kit.api.bundles import load, pack, verify
from deploy_kit.api.engines import bench, build, check, speed_up
from deploy_kit.api.graphs import export, quantize, simplify
from deploy_kit.api.line import deploy, load_recipe, load_report, write_report
from deploy_kit.api.mixing import find_mix
from deploy_kit.api.slimming import slim

__all__ = [
    "bench",
    "build",
    "check",
    "deploy",
    "export",
    "find_mix",
    "load",
    "load_recipe",
    "load_report",
    "pack",
    "quantize",
    "simplify",
    "slim",
    "speed_up",
    "verify",
    "write_report",
]

_notebook.register()
