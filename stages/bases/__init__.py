"""The frozen base: which there are, their weights, where they are cut, and what computes them."""
