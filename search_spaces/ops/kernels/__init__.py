"""Fast evaluation of the operations."""
