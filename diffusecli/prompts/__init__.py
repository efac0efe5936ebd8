"""Prompts, configs, distributions, and matching of answers to targets."""
