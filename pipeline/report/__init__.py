"""The report: what became of every row, every cent and every failure, as tables and one summary."""
