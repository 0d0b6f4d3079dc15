"""Stage two: what is trained on cached features, scored, and left behind."""
