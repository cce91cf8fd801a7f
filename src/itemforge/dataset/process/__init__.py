"""From a picture as it was found to one that a model can learn from: opened, put on white, framed, compared, split."""
