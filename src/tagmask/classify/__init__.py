"""The tag classifier: backbones, heads, and the stage that trains it."""
