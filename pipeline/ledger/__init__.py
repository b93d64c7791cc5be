"""The ledger: the append-only record of all that happened to jobs and money, in parquet."""
