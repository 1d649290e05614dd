"""Damaged raws: a header, a consistent frame or a clear `RawReadError`; never a crash, a hang or a line on the screen."""

import os
import struct
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from benchmarks.mutations import broken_laws, tally, write_bases
from lowlight_kedro.datasets.decoding import RawReadError, read_frame, read_header, without_libraws_lines
from lowlight_kedro.datasets.dng import write_dng
from tests.conftest import SHARED, make_frame


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    return write_bases(tmp_path_factory.mktemp("bases"))


@pytest.mark.parametrize(("which", "count"), [(0, 850), (1, 150)], ids=["bayer", "xtrans"])
def test_a_thousand_damaged_raws_are_read_consistently_or_refused(which, count, bases):
    """In child processes, so that a crash of the decoder is a failed test; `benchmarks/mutations.py` shows the table."""
    counts = tally(bases[which], count)
    results = Counter()
    for (_, result), number in counts.items():
        results[result] += number
    assert set(results) == {"frame", "refused"}, counts
    assert min(results.values()) > count / 5  # the mutations are neither harmless nor all fatal


def patched(path, changes):
    """The file at `path` with the values of tags replaced: {number: bytes of the entry's value}."""
    with tifffile.TiffFile(path) as file:
        places = {number: file.pages.first.tags[number].offset for number in changes}
    with path.open("rb+") as file:
        for number, value in changes.items():
            file.seek(places[number] + 8)
            file.write(value)
    return path


def short(value):
    return struct.pack("<HH", value, 0)


REFUSED = {
    r"claims 60000 x 60000 photosites in \d+ bytes, which cannot be": {256: struct.pack("<I", 60000), 257: struct.pack("<I", 60000)},
    r"white level 500 does not lie above its black level 512": {50717: short(500)},
    r"its image ends at byte \d+, the file at \d+; it was not copied whole": {273: struct.pack("<I", 30000)},
    r"the colour filter array is neither|colour filter array .* is neither|more than three colours": {33422: bytes(4)},
}


@pytest.mark.parametrize("message", REFUSED)
def test_the_reason_is_told(message, bases, tmp_path):
    (tmp_path / "a.dng").write_bytes(bases[0].read_bytes())
    patched(tmp_path / "a.dng", REFUSED[message])
    with pytest.raises(RawReadError, match=r"a\.dng: .*(" + message + ")"):
        read_frame(tmp_path / "a.dng")


def test_huge_claims_are_refused_before_memory_is_taken(bases, tmp_path):
    """20000 x 20000, which LibRaw would allocate: 800 MB for a file of 42 kB."""
    (tmp_path / "a.dng").write_bytes(bases[0].read_bytes())
    patched(tmp_path / "a.dng", {256: struct.pack("<I", 20000), 257: struct.pack("<I", 20000)})
    peak = _peak_megabytes()
    for read in (read_header, read_frame):
        with pytest.raises(RawReadError, match="claims 20000 x 20000 photosites"):
            read(tmp_path / "a.dng")
    assert _peak_megabytes() < peak + 50


def _peak_megabytes():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("make", ["folder", "missing", "below a file", "link to nothing"])
def test_what_is_no_file_is_named(make, tmp_path):
    path = tmp_path / "x.dng"
    if make == "folder":
        path.mkdir()
    elif make == "below a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file" / "x.dng"
    elif make == "link to nothing":
        path.symlink_to(tmp_path / "nothing")
    for read in (read_header, read_frame):
        with pytest.raises(RawReadError, match=r"x\.dng: (it is no file|there is no such file|Not a directory)"):
            read(path)


def test_a_file_that_may_not_be_read_is_named(bases, tmp_path):
    (tmp_path / "a.dng").write_bytes(bases[0].read_bytes())
    (tmp_path / "a.dng").chmod(0)
    if os.access(tmp_path / "a.dng", os.R_OK):
        pytest.skip("this user may read any file")
    with pytest.raises(RawReadError, match=r"a\.dng: "):
        read_header(tmp_path / "a.dng")


def test_a_file_that_ends_early_prints_nothing_and_other_words_pass(bases, tmp_path, capfd):
    (tmp_path / "a.dng").write_bytes(bases[1].read_bytes()[:-3000])
    for read in (read_header, read_frame):
        with pytest.raises(RawReadError, match=r"a\.dng"):
            read(tmp_path / "a.dng")
    with without_libraws_lines():
        os.write(2, b"a word of ours\n")
    assert capfd.readouterr().err == "a word of ours\n"


def test_a_name_of_any_bytes_can_be_printed(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.dng")
    path.write_bytes(b"x")
    with pytest.raises(RawReadError) as refused:
        read_frame(path)
    assert "caf\ufffd.dng: " in str(refused.value)


def test_a_picture_whose_end_was_not_decoded_is_refused(rng, tmp_path):
    frame = make_frame(rng, shape=(128, 160))
    frame.mosaic_dn[64:] = 0
    write_dng(tmp_path / "a.dng", frame)
    with pytest.raises(RawReadError, match="photosites are 0, without any noise"):
        read_frame(tmp_path / "a.dng")


@pytest.mark.skipif(not (SHARED / "raw_bracket").is_dir(), reason="no raw_bracket folder in LOWLIGHT_TEST_DATA")
@pytest.mark.parametrize("fraction", [0.02, 0.5, 0.999])
def test_a_real_raw_that_was_not_copied_whole_is_refused(fraction, tmp_path):
    """LibRaw gives a picture of zeros for what lies beyond the end of the file."""
    whole = (SHARED / "raw_bracket/sample3.dng").read_bytes()
    (tmp_path / "a.dng").write_bytes(whole[: int(fraction * len(whole))])
    for read in (read_header, read_frame):
        with pytest.raises(RawReadError, match=r"a\.dng: (its image ends at byte|LibRaw cannot read it)"):
            read(tmp_path / "a.dng")


def test_the_laws_can_fail(rng):
    frame = make_frame(rng)
    assert broken_laws(frame) is None
    assert broken_laws(replace(frame, exposure_s=np.inf)) == "exposure"
    assert broken_laws(replace(frame, black_level=np.full((2, 2), 20000.0))) == "levels"
