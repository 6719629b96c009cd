"""Arrays and tensors only: transforms, views, maps, random walk, K-means, pieces of losses."""
