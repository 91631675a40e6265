"""A pipeline's source files as one archive that says by its digest what is in it."""
