"""TODO deeplabv3plus."""
