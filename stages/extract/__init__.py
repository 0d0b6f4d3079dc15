"""Stage one: images through the frozen base into shards."""
