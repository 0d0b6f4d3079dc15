"""The report: one self-contained page. ``page`` is light and tells what was written; ``render`` writes it."""
