"""Pages and tables of several runs."""
