"""Imported once by the process that all lives are forked from: nothing of it may start a thread."""

import gc

import worlds

worlds.warm()
gc.freeze()  # a collection in a life must not touch, and so copy, all that it shares with the others
