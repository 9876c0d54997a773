"""One-shot searches: the supernet as a Ray Tune trainable, and the parts its algorithms share."""
