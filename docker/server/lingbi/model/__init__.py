"""The models: what they are, where they lie, and what room they need."""
