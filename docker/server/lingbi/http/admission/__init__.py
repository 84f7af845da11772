"""What is let in: how many requests, and how many bytes of bodies, in all and of each key."""
