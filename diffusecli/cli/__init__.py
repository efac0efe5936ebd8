"""The `diffuse` command: parses options, calls a verb, renders its result. Nothing else prints or exits.

Only plain Python is imported at module level, so that `diffuse --help` never loads torch; command bodies import what they need.
"""
