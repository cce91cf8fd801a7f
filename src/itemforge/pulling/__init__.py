"""From a name, a hub, an address or a path to a model at home: resumable, checked, and whole or not there."""
