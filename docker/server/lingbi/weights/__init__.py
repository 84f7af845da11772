"""Weights: fetched completely or not at all, verified against a lock, used in place, listed and removed."""
