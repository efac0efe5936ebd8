"""General utilities: errors and exit codes, the terminal, memory, timeouts, Ctrl-C, git."""
