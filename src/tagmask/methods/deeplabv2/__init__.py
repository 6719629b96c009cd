"""TODO deeplabv2."""
