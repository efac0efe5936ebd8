"""A mixture of prompts: many families of distributions, parameters and wordings drawn at random.

`families_of_*.py` have a function per family, `questions/` its questions; `splits.py` draws the prompts; `folder.py` lays them out as files.
Knows distributions and prompts; writes nothing.
"""
