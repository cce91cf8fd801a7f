"""Pictures and what a wiki says of them, fetched politely and from public addresses only."""
