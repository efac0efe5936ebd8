"""The study: what the tool does to the built-in model, from the first command to the tables of docs/study.md."""
