"""The models: what they are, where their files are, and how much memory they need."""
