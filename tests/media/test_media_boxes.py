"""The container check: what it proves, and where it ends."""

from __future__ import annotations

import struct

import pytest
from media_doubles import box, patch

from pipeline.media.boxes import MAX_MOOV, MAX_SAMPLES, Box, Facts, _samples_per_chunk, walk
from pipeline.media.results import Damaged


def look(data: bytes) -> Facts:
    return walk(lambda offset, length: data[offset : offset + length], len(data))


def damage(data: bytes) -> str | None:
    try:
        look(data)
    except Damaged as found:
        return str(found)
    return None


def test_a_real_film_says_its_length_and_size(tiny: bytes, tiny_fast: bytes, clip_720p: bytes) -> None:
    """Whole films pass, with their tables before or behind the pictures, and tell their facts."""
    assert look(tiny) == look(tiny_fast) == Facts(0.125, 64, 36)
    assert look(clip_720p) == Facts(5.0, 1280, 720)
    assert tiny_fast.index(b"moov") < tiny_fast.index(b"mdat")
    assert tiny.index(b"moov") > tiny.index(b"mdat")


def test_a_film_cut_at_any_byte_is_damaged(tiny: bytes, tiny_fast: bytes) -> None:
    """Not one of all the possible cuts passes."""
    for film in (tiny, tiny_fast):
        assert [cut for cut in range(len(film)) if damage(film[:cut]) is None] == []


def test_the_one_cut_that_passes_loses_nothing(tiny: bytes) -> None:
    """A cut exactly before a trailing box that no table points into cannot be seen, and costs no picture."""
    film = tiny + box(b"free", bytes(100))
    assert [cut for cut in range(len(film)) if damage(film[:cut]) is None] == [len(tiny)]


def test_bytes_too_many_are_damage(tiny: bytes) -> None:
    """Whatever follows the last box must be a box."""
    assert damage(tiny + b"\0")
    assert damage(tiny + b"</html>!")


@pytest.mark.parametrize(
    "body",
    [
        b"<!DOCTYPE html><html><body>404</body></html>",
        b'\n {"error": "expired"}',
        b"\x1a\x45\xdf\xa3" * 9,
        b"",
        b"\0" * 99,
    ],
)
def test_what_is_no_mp4_is_damaged(body: bytes) -> None:
    """Web pages, messages, other containers, zeros and nothing at all."""
    assert damage(body)


def test_a_web_page_is_called_what_it_is() -> None:
    """The message helps whoever reads it."""
    assert damage(b"  <html></html>") == "it is text (a web page or a message), not a video"


def test_no_flipped_byte_brings_the_walk_down(tiny_fast: bytes) -> None:
    """Each byte set to some other values gives facts or damage, never another exception."""
    for at in range(len(tiny_fast)):
        for value in (0x00, 0xFF, tiny_fast[at] ^ 0x80):
            damage(tiny_fast[:at] + bytes([value]) + tiny_fast[at + 1 :])


@pytest.mark.parametrize("offset", [0, 1, 2**31, 2**32 - 1])
def test_a_chunk_outside_the_media_data_is_damage(tiny: bytes, offset: int) -> None:
    """The tables may not point into other boxes or beyond the file."""
    assert damage(patch(tiny, b"stco", 8, struct.pack(">I", offset))) == "its tables point outside its media data"


def test_samples_that_outgrow_the_media_data_are_damage(tiny: bytes) -> None:
    """A chunk begins inside, but its pictures would end behind."""
    assert damage(patch(tiny, b"stsz", 12, struct.pack(">I", 1_000_000))) == "its tables point outside its media data"


def test_one_byte_too_many_is_seen(tiny: bytes) -> None:
    """The sizes are held against the media data to the byte: its last sample ends where the data ends."""
    at = tiny.index(b"stsz") + 4 + 12 + 8
    (size,) = struct.unpack_from(">I", tiny, at)
    assert damage(patch(tiny, b"stsz", 20, struct.pack(">I", size + 1)))


@pytest.mark.parametrize("kind", [b"stco", b"stsz", b"stsc"])
def test_a_table_that_claims_more_than_it_holds_is_damage(tiny: bytes, kind: bytes) -> None:
    """Counts of four billion neither pass nor take memory."""
    offset = 8 if kind == b"stsz" else 4
    assert damage(patch(tiny, kind, offset, b"\xff\xff\xff\xff"))


def test_tables_that_disagree_are_damage(tiny: bytes) -> None:
    """Chunks must hold exactly the samples that there are."""
    assert damage(patch(tiny, b"stsc", 12, struct.pack(">I", 2)))
    assert damage(patch(tiny, b"stsc", 12, struct.pack(">I", 4)))
    assert damage(patch(tiny, b"stsc", 8, struct.pack(">I", 2)))


@pytest.mark.parametrize("firsts", [(1, 1), (1, 3, 2), (1, 9), (2, 3), ()])
def test_runs_of_chunks_must_be_in_order(firsts: tuple[int, ...]) -> None:
    """Each run begins after the one before it and within the chunks that there are."""
    table = struct.pack(">II", 0, len(firsts)) + b"".join(struct.pack(">III", first, 1, 1) for first in firsts)
    with pytest.raises(Damaged, match="table of chunks"):
        list(_samples_per_chunk(table, {b"stsc": Box(b"stsc", 0, len(table))}, 4))


def test_runs_of_chunks_are_spread_out() -> None:
    """A run holds until the next one begins."""
    table = struct.pack(">II", 0, 2) + struct.pack(">III", 1, 5, 1) + struct.pack(">III", 4, 2, 1)
    assert list(_samples_per_chunk(table, {b"stsc": Box(b"stsc", 0, len(table))}, 4)) == [5, 5, 5, 2]


@pytest.mark.parametrize("kind", [b"moov", b"mdat", b"ftyp", b"stsz", b"stco", b"stsc", b"trak", b"hdlr", b"stbl"])
def test_every_box_that_matters_must_be_there(tiny: bytes, kind: bytes) -> None:
    """Renamed, that is missing, it is damage."""
    assert damage(tiny.replace(kind, b"xxxx", 1))


def test_sixty_four_bit_and_open_ended_boxes_are_understood(tiny_fast: bytes) -> None:
    """The two long forms of a box size mean the same film; a cut is found in both."""
    at = tiny_fast.index(b"mdat") - 4
    head, payload = tiny_fast[:at], tiny_fast[at + 8 :]
    open_ended = head + struct.pack(">I4s", 0, b"mdat") + payload
    assert look(open_ended) == look(tiny_fast)
    assert damage(open_ended[:-1])
    # Eight bytes more before the pictures: the header needs them, and the tables are moved along.
    (first,) = struct.unpack_from(">I", head, head.index(b"stco") + 12)
    long = patch(head, b"stco", 8, struct.pack(">I", first + 8))
    long += struct.pack(">I4sQ", 1, b"mdat", 16 + len(payload)) + payload
    assert look(long) == look(tiny_fast)
    assert damage(long[:-1])
    assert damage(long[: len(head) + 12])


def test_a_box_smaller_than_its_header_is_damage(tiny: bytes) -> None:
    """No size makes the walk stand still."""
    for size in (2, 7):
        assert damage(tiny + struct.pack(">I4s", size, b"free")) == "its box free is smaller than its own header"
    assert damage(tiny + struct.pack(">I4sQ", 1, b"free", 15)) == "its box free is smaller than its own header"


def test_a_million_boxes_are_not_walked(tiny: bytes) -> None:
    """Neither side by side, nor within a parent."""
    assert damage(tiny + box(b"free", b"") * 1_100) == "it has too many boxes"
    assert damage(tiny + box(b"moov", box(b"free", b"") * 1_100)) == "it has more than one moov box"
    head = box(b"ftyp", b"isom") + box(b"mdat", b"x")
    assert damage(head + box(b"moov", box(b"free", b"") * 1_100)) == "it has too many boxes"


MANY = "it has too many pictures, or pieces of sound"


def test_a_film_in_fragments_is_whole(in_fragments: bytes) -> None:
    """Its tables are not all in one place."""
    assert damage(in_fragments) is None


@pytest.mark.parametrize("at", ["of a fragment", "within the movie", "within a track", "by itself"])
def test_a_few_bytes_that_speak_of_billions_of_pictures_are_damage(tiny: bytes, in_fragments: bytes, at: str) -> None:
    """FFmpeg would take gigabytes for them, wherever it finds them, and the run would be killed for it."""
    run = box(b"trun", struct.pack(">II", 0, 2**28))
    if at == "of a fragment":
        assert damage(patch(in_fragments, b"trun", 4, struct.pack(">I", 2**28))) == MANY
    elif at == "by itself":
        assert damage(tiny + run) == "a part of a fragment stands by itself"
    else:
        # The movie is the last box of this film, and a track the first that holds others.
        size = struct.pack(">I", len(tiny) - tiny.index(b"moov") + 4 + len(run))
        film = tiny[: tiny.index(b"moov") - 4] + size + tiny[tiny.index(b"moov") :]
        if at == "within the movie":
            assert damage(film + run) == MANY
        else:
            track = tiny.index(b"trak")
            (length,) = struct.unpack_from(">I", tiny, track - 4)
            longer = struct.pack(">I", length + len(run)) + film[track : track - 4 + length] + run
            assert damage(film[: track - 4] + longer + film[track - 4 + length :]) == MANY


def test_the_compact_table_of_sizes_is_bounded_too(tiny: bytes) -> None:
    """It takes half a byte for each."""
    compact = tiny.replace(b"stsz", b"stz2")
    assert damage(compact) is None
    assert damage(patch(compact, b"stz2", 8, struct.pack(">I", MAX_SAMPLES + 1))) == MANY


@pytest.mark.parametrize(("samples", "said"), [(MAX_SAMPLES, None), (MAX_SAMPLES + 1, MANY)])
def test_as_many_pictures_as_can_be_listed_are_enough(samples: int, said: str | None) -> None:
    """Where all have one size, a number stands for the list of them."""
    head = box(b"ftyp", b"isom")
    sizes = box(b"stsz", struct.pack(">III", 0, 1, samples)), box(b"stsc", struct.pack(">IIIII", 0, 1, 1, samples, 1))
    table = box(b"stbl", b"".join(sizes) + box(b"stco", struct.pack(">III", 0, 1, len(head) + 8)))
    media = box(b"mdia", box(b"hdlr", bytes(8) + b"vide") + box(b"minf", table))
    assert damage(head + box(b"mdat", bytes(samples)) + box(b"moov", box(b"trak", media))) == said


def test_only_headers_and_tables_are_read(tiny: bytes) -> None:
    """A gigabyte of pictures, or of tables, is never brought into memory."""
    asked: list[int] = []

    def read(offset: int, length: int) -> bytes:
        asked.append(length)
        return tiny[offset : offset + length]

    walk(read, len(tiny))
    moov = len(tiny) - (tiny.index(b"moov") + 4)
    assert sorted(asked)[-2:] == [16, moov]
    huge = box(b"ftyp", b"isom") + box(b"mdat", b"x") + struct.pack(">I4s", MAX_MOOV + 9, b"moov")
    with pytest.raises(Damaged, match="too large"):
        walk(lambda offset, length: huge[offset : offset + length].ljust(length, b"\0"), len(huge) + MAX_MOOV + 1)


def test_a_file_that_shrinks_while_it_is_read_is_damage(tiny: bytes) -> None:
    """The size was asked first; less than that came."""
    with pytest.raises(Damaged, match="became shorter"):
        walk(lambda offset, length: tiny[offset : offset + length], len(tiny) + 20)


def test_a_flipped_picture_byte_is_beyond_this_check(tiny: bytes) -> None:
    """The container check proves completeness, not content: this is what the other levels are for."""
    at = tiny.index(b"mdat") + 400
    assert damage(tiny[:at] + bytes([tiny[at] ^ 0xFF]) + tiny[at + 1 :]) is None
