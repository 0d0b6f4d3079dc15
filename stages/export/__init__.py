"""A trained head as one model to take with you: from pixels to probabilities, in the formats that others read."""
