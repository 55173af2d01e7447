"""A warm base, a mix and a request, on their way to pictures."""
