"""Writes small manifests and loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.kernel.errors import ManifestError, Mistake
from pipeline.manifest import Campaign, load_manifest

Load = Callable[..., Campaign]
Fail = Callable[..., list[Mistake]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """`load(text, "name.yaml")`: the campaign of a manifest with that text."""

    def load_text(text: str | bytes, name: str = "manifest.yaml") -> Campaign:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return load_manifest(path)

    return load_text


@pytest.fixture
def fail(load: Load) -> Fail:
    """`fail(text, "name.yaml")`: the mistakes of a manifest that must be refused."""

    def fail_text(text: str | bytes, name: str = "manifest.yaml") -> list[Mistake]:
        with pytest.raises(ManifestError) as caught:
            load(text, name)
        assert caught.value.mistakes
        return caught.value.mistakes

    return fail_text
