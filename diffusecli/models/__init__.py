"""Base models and adapters: fetch, load, talk to, tokens and their prefix trees, attention."""
