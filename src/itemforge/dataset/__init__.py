"""From pictures that others made to captioned training sets."""
