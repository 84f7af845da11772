"""Commands that people type, other than those of launch, smoke and bench."""
