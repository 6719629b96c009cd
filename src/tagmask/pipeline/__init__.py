"""From a recipe to a run: which stages in which order, what is up to date, and the walk along them."""
