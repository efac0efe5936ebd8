"""The `diffuse` command: options are parsed, a verb is called, its result is rendered. Nothing else prints or exits.

Only plain Python is imported at module level, so that `diffuse --help` never loads torch; command bodies import what they need.
"""
