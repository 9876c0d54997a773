"""How a candidate is trained and scored: data, the training loop, Ray Tune trainables."""
