"""`python -m pipeline` is `kling-batch`."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
