"""What any program needs: errors and exit codes, the terminal, memory, limits of time, Ctrl-C, git."""
