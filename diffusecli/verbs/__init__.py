"""One module per subcommand: create prompts, validate, train, sample, evaluate, export. Verbs never import each other."""
