"""The permutohedral lattice: Gaussian filtering in five dimensions, compiled or in torch."""
