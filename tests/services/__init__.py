"""The real services that tests talk to: private, started on first use, gone when the session ends."""
