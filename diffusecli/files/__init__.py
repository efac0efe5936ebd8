"""Files of people and of ours, read and written; nothing of what they mean."""
