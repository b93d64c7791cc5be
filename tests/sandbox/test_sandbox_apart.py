"""The double shares nothing with the client that it judges."""

import ast
import sys
from pathlib import Path

import pipeline.sandbox

ALLOWED = {"aiohttp", "av", "PIL", "orjson", *sys.stdlib_module_names}


def test_the_sandbox_imports_nothing_of_the_client() -> None:
    """Its modules import the standard library, four packages and each other."""
    for path in Path(pipeline.sandbox.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [str(node.module)]
            for name in names:
                assert name.startswith("pipeline.sandbox") or name.split(".")[0] in ALLOWED, (path.name, name)
