"""From vectors back to images: what can be read back out of an embedding, in pictures and in figures."""
