"""Base models, adapters, chat templates, tokens and prefix trees, attention."""
