"""The export: the artifacts of a run directory as a data set that other libraries load."""
