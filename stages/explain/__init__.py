"""What a head looked at: which places of an image speak for a class."""
