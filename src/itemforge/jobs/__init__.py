"""The life of a request: its states, its tables, and who may change what.

The row is the truth; queue, events and answers follow from it.
"""
