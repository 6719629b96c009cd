"""What every kind of method is given and must return, and the registry that finds methods by name."""
