"""What each request passes before its route, from the outside in: accounting, cross_origin, door."""
