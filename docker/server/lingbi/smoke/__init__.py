"""scripts/smoke: prove that a running server answers correctly."""
