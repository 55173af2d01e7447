"""Whatever was dropped, on its way into a dataset's folder."""
