"""Device, precision, processes and threads, and the one training loop."""
