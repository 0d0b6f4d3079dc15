"""Which variants of a head are tried, and what came of each."""
