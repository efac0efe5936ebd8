"""The exact loss, retention, the training loop, checkpoints."""
