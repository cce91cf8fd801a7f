"""The page on which people look at pictures and their captions, and decide.

Every change is one transaction of the dataset, made from the version that the person saw; the server keeps nothing in memory
that would be lost with it.
"""
