"""The web pages, each a room of its own."""
