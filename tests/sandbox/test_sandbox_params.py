"""What the provider takes as a submission."""

import json
from typing import Any

import pytest

from pipeline.sandbox.params import BodyRefusedError, read_body, shape_of


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        (b"{", 400, "Malformed"),
        (b"[]", 400, "object"),
        ({}, 400, "prompt"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": "  "}, 406, "prompt"),
        ({"prompt": 5}, 406, "prompt"),
        ({"prompt": "x", "duration": 7}, 406, "duration"),
        ({"prompt": "x", "duration": "5"}, 406, "duration"),
        ({"prompt": "x", "duration": True}, 406, "duration"),
        ({"prompt": "x", "cfg_scale": 1.01}, 406, "cfg_scale"),
        ({"prompt": "x", "cfg_scale": None}, 406, "cfg_scale"),
        ({"prompt": "x", "aspect_ratio": "4:3"}, 406, "aspect_ratio"),
        ({"prompt": "x", "aspect_ratio": []}, 406, "aspect_ratio"),
        ({"prompt": "x", "negative_prompt": 1}, 406, "negative_prompt"),
        ({"prompt": "x", "start_image": "file:///etc/passwd"}, 406, "start_image"),
        ({"prompt": "x", "start_image": "sha256:" + "0" * 64}, 406, "start_image"),
        ({"prompt": "x", "seed": 3}, 406, "seed"),
    ],
    ids=str,
)
def test_a_wrong_body_is_refused_by_name(body: Any, status: int, word: str) -> None:
    """A refusal has the documented status and names what is wrong."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(BodyRefusedError) as caught:
        read_body(raw)
    assert (caught.value.status, word in caught.value.message) == (status, True)


def test_the_ends_of_every_range_are_taken() -> None:
    """A body at the limits of its parameters is accepted as it is."""
    for scale in (0, 1, 0.5):
        body = {"prompt": "x", "cfg_scale": scale, "duration": 10, "aspect_ratio": "1:1", "start_image": "https://a/b"}
        assert read_body(json.dumps(body).encode()) == body
        assert shape_of(body) == ("1:1", 10)
    assert shape_of({"prompt": "x"}) == ("16:9", 5)
