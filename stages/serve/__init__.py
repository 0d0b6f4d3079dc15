"""Trained heads behind a page and a small JSON endpoint, for people to try them."""
