"""The stages of a run; each reads what the one before it left, and leaves its own."""
