"""Make saliency maps of the training images."""
