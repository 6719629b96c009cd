"""Turn activation maps into pseudo masks."""
