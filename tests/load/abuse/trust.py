"""What the many clients of an attack trust, read once."""

import httpx

AUTHORITIES = httpx.create_ssl_context()
