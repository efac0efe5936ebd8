"""The Python API: the verbs with Python values as arguments, no output, and results that convert to data frames.

Converts arguments for the verbs, and their results. Never prints, never exits.
"""
