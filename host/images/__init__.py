"""The images of lingbi on one machine: where they come from, what they take, and which are old."""
