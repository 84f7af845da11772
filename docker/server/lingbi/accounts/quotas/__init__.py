"""What keys and groups may use: the decision, what runs, and what counts."""
