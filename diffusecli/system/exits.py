"""Exit codes of commands. Imports nothing, so that `__main__` can set signal handlers at once."""

EXIT_FOUND_PROBLEMS = 1
EXIT_INPUT = 2
EXIT_ENVIRONMENT = 3
EXIT_INTERRUPTED = 130
