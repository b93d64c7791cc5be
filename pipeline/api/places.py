"""Where a run directory is on this machine, whether it is named by its folder or by its address."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.api.configuring import load_config
from pipeline.kernel.address import address_of

if TYPE_CHECKING:
    from pipeline.config import Config


def folder_of(directory: Path | str) -> Path:
    """The folder of a run directory; one in object storage is brought up to date there first.

    Raises:
        InputError: the address cannot be used, or the copies contradict each other.
        MachineError: the storage or the disk refused.
    """
    address = address_of(directory)
    if address is None:
        return Path(directory)
    from pipeline.mirror.mirror import refresh
    from pipeline.mirror.places import local_folder

    folder = local_folder(address, Path(load_config().output.local_dir))
    refresh(folder, address)
    return folder


def runs_folder(config: Config) -> Path:
    """The folder in which a configuration's run directories are, or work."""
    address = address_of(config.output.dir)
    if address is None:
        return Path(config.output.dir)
    from pipeline.mirror.places import local_folder

    return local_folder(address, Path(config.output.local_dir))
