"""Every change of a dataset, undoable."""
