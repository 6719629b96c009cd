"""The stages of the street; each reads what the one before it left, and leaves its own."""
