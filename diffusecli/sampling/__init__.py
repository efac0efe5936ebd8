"""Engines: the counting sampler, servers."""
