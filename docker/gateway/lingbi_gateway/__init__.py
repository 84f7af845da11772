"""lingbi's gateway: renders nginx's configuration from named settings and starts nginx. Standard library only."""
