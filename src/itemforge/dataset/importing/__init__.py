"""Pictures and captions that lie on this machine, into a dataset."""
