"""TODO sc_cam."""
