"""The run directory, sample files, and the journal of an unfinished sampling."""
