"""How dense heads are trained, many at once."""
