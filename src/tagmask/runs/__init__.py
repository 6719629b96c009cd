"""The run directory, and what a stage is handed of it."""
