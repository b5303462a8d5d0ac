"""Engines measured in turns: the race, what the machine did meanwhile, and what the numbers are worth."""
