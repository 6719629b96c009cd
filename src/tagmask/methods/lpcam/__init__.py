"""TODO lpcam."""
