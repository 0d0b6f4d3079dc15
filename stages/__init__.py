"""The work: scan, stage one (features), stage two (heads), report. Knows no command line."""
