"""A folder of pictures and captions, on its way to batches."""
