"""A run directory in object storage: it works on a disk here, and what it holds is brought there as it comes to be."""
