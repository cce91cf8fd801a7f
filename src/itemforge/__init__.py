"""ItemForge: from a prompt to a 2D game item in a game's own art style."""

__version__ = "0.1.0"
