"""The page: Impasto in the local browser. Starts and watches the engine's processes; holds no torch and no training."""
