"""From what a user wrote, a file and changes on the command line, to the plain values that a recipe is built of."""
