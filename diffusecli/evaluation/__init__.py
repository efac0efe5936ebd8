"""Where samples come from, the figures, their sampling error, verdicts."""
