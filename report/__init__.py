"""A page about encoders and a folder of images: what an encoder sees, what it is worth, what INT8 changes."""
