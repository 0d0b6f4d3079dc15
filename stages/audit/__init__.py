"""The audit: what is odd about the images and their labels, seen from their cached features. ``results`` is light."""
