"""What may be wrong with a dataset, and what a click does about it."""
