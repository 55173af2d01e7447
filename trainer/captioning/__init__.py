"""Captions that are written by a model, or from file names."""
