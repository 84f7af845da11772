"""lingbi as a systemd service: the unit's text, and what systemd knows of it."""
