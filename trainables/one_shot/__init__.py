"""One-shot searches: the supernet as a Ray Tune trainable, and what its algorithms share."""
