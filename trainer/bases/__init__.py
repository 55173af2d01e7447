"""The base models that a person has: what a file is, where it comes from, what it is known by, and what it holds."""
