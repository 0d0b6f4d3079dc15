"""Which images are like a given one, and which are worth labelling next."""
