"""Downloads by the workers of a Dask cluster. The one door to `distributed`, which is loaded when a run asks for it.

The workers hold no money, no key and no ledger: a task is a free download that may be done twice, or never.
"""
