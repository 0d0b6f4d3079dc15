"""What several commands do, and what stands behind one that stays."""
