"""One folder per published method; the file is its kind: head, localizer, refiner, network, loss, saliency."""
