"""A head put to use."""
