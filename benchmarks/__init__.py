"""The bench that holds deploykit's graphs against stock tools: ``python -m benchmarks --help``."""
