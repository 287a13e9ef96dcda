"""What an encoder is worth, and whether a bundle is the encoder that was trained."""
