"""What runs on the target: the worker, and the agent that starts workers on a device.

These need the standard library, numpy and the engine's own package, nothing else, when they are loaded.
"""
