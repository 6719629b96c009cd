"""TODO advcam."""
