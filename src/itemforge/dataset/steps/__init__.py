"""The steps that make a training set of a dataset's pictures. Each goes on where it was stopped."""
