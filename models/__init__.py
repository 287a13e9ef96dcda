"""Networks and weights: backbones, BYOL, and the encoder that is exported."""
