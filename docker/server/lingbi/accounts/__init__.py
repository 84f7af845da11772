"""Who may use the server, what each has used, and what each may use."""
