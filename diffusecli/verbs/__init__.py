"""What people do, one module a subcommand: describe prompts, check, train, sample, compare, export. Verbs never import each other."""
