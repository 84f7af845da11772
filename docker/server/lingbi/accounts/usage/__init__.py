"""What was used: reports of it, how long it is kept, and what one owner has of it."""
