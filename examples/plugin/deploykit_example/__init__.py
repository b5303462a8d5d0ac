"""A graph pass and an engine for deploykit, from outside of it."""
