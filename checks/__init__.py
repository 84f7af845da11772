"""What scripts/check asks of this repository beside the tools that everybody has."""
