"""The typed Python client of the gateway."""

from itemforge.client.sync import Client, Generation

__all__ = ["Client", "Generation"]
