"""Looking at run directories, beside a live run or at rest: light to import, and without a trace in the directory."""
