"""What a key's account means for its requests: limits, and the own use."""
