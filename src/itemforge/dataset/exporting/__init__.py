"""A dataset's pictures and captions, in the layouts that trainers read."""
