"""Train the tag classifier."""
