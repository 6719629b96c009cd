"""The only door to the disk: whole writes, JSON, pictures, arrays, weights, images."""
