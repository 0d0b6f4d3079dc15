"""What commands do: a file for each, which has its name."""
