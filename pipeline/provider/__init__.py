"""The provider: one outside thing, asked over HTTP and understood by total functions. No retry, no sleep, no ledger."""
