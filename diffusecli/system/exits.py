"""What commands end with. Imports nothing, so that `__main__` gets to its signals without delay."""

EXIT_FOUND_PROBLEMS = 1
EXIT_INPUT = 2
EXIT_ENVIRONMENT = 3
EXIT_INTERRUPTED = 130
