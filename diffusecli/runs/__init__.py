"""The run directory: what stands where, samples, what has been sampled so far."""
