"""The exact loss, what holds other abilities, and all that a training keeps."""
