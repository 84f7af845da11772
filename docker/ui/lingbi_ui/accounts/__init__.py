"""What is used and what is left, to look at: /admin for administrators, /usage for a visitor with a login."""
