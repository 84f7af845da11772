"""Weights: fetched whole or not at all, proven against a lock, used in place, listed and removed."""
