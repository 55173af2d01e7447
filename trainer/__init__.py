"""The engine of Impasto: pictures in, a LoRA out, LoRAs mixed, pictures drawn. Headless, complete without the page."""

__version__ = "0.1.0"
