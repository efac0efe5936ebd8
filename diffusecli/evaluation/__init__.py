"""Sources of samples, figures with their sampling error, verdicts."""
