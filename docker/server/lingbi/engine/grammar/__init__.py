"""The forms that answers can be bound to, and which tokens each allows next."""
