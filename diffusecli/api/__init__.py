"""What programs call: the verbs with values of Python in place of options, quiet, with results that become data frames.

Converts what programs have and what the verbs return. Prints nothing, exits never.
"""
