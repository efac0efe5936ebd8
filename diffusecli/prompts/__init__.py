"""What is asked for: prompts, configs, distributions, and when an answer is a target."""
