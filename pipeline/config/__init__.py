"""The configuration: one file, the environment and the command line become one frozen `Config`.

Precedence: default < file < `KLING_BATCH_<SECTION>__<KEY>` in the environment < flags. Secrets are read from the
environment (or a `.env` file in the working directory) and are no part of `Config`, so that it may be written anywhere.
"""

from pipeline.config.loading import FLAGS, change_config, load_config
from pipeline.config.secrets import read_key, read_webhook
from pipeline.config.settings import Config
from pipeline.config.writing import dump_config

__all__ = ["FLAGS", "Config", "change_config", "dump_config", "load_config", "read_key", "read_webhook"]
