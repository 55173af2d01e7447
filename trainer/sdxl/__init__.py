"""The frozen base: loading it, its text, its sampler."""
