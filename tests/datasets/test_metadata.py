"""What is noted beside a picture survives, or its loss is told."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, IptcImagePlugin

from lowlight_kedro.datasets.carried import DNG_PRIVATE, MAKER_NOTE, NOTE_SAFETY, NOTES, NOTES_IN_DNG, PACKET, kept_in_dng, whole_packet
from lowlight_kedro.datasets.decoding import read_header
from lowlight_kedro.datasets.dng import write_dng
from lowlight_kedro.datasets.exif import append_directories, blob, first_tags, left_out_of_jpeg
from lowlight_kedro.datasets.image import ImageDataset, Picture, linear_profile, srgb_profile
from lowlight_kedro.datasets.linear_dng import LinearPicture, write_linear_dng
from lowlight_kedro.datasets.metadata import Metadata, fractions, of_frame, read_metadata, short, text
from lowlight_kedro.datasets.tags import DNG_VERSION, Entry, read_tags
from lowlight_kedro.sensor.calibration.record import noise_from_calibrations
from lowlight_kedro.sensor.frame import UNKNOWN_CAMERA
from lowlight_kedro.sensor.render import camera_to_srgb
from tests.conftest import SHARED, make_frame
from tests.datasets.test_three_values import x3f

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" tiff:Orientation="6" xmp:Rating="4"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
MAIN = [text(315, "Änne Müller"), text(33432, "(c) A. M."), short(18246, 4), text(270, "Night"), text(306, "2026:01:02 03:04:05")]
EXIF = [
    text(42036, "Sonnar T* 55mm"), text(42033, "0042"), text(37521, "57"), text(36881, "+09:00"), short(37383, 5), short(37385, 24),
    Entry(37380, 10, 1, struct.pack("<ii", -2, 3)), fractions(33437, [1.8], 100),
]  # fmt: skip
GPS = [text(1, "S"), fractions(2, [33, 51, 35.9], 100), text(3, "E"), fractions(4, [151, 12, 40], 100)]
POSITION = (33, 51, 35.9)


def numbered(entries):
    return {entry.number: entry for entry in entries}


def raw(path, xmp=XMP, exif=(), gps=GPS, order="<", **changes):
    """A mosaic TIFF that says what a photographer's raw says."""
    frame = replace(make_frame(np.random.default_rng(0), shape=(64, 64)), orientation=6, **changes)
    own = of_frame(frame)
    metadata = Metadata(dict(own.main) | numbered(MAIN), dict(own.exif) | numbered([*EXIF, *exif]), numbered(gps), xmp)
    with tifffile.TiffWriter(path, byteorder="<") as writer:
        writer.write(frame.mosaic_dn, extratags=first_tags(metadata), metadata=None)
    append_directories(path, metadata)
    return frame


def written(kind, path, metadata, frame):
    light = np.full((3, 40, 60), 0.3, np.float32)
    if kind == "dng":
        write_linear_dng(path, LinearPicture(light, frame, 5.0, None, metadata), headroom=8)
    else:
        ImageDataset(filepath=str(path)).save(Picture(light, metadata.upright()))


@pytest.mark.parametrize("kind", ["dng", "tif", "jpg", "png"])
def test_what_a_photographer_noted_stands_in_every_file(tmp_path, kind):
    frame = raw(tmp_path / "a.tif")
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert carried.lost == ()
    path = tmp_path / f"b.{kind}"
    written(kind, path, carried, frame)
    with Image.open(path) as picture:
        first = picture.getexif()
        exif, gps = first.get_ifd(34665), first.get_ifd(34853)
        assert first[274] == (6 if kind == "dng" else 1)  # a picture that was turned upright says so
        assert first[18246] == 4
        assert (first[306], first[33432], first[270]) == ("2026:01:02 03:04:05", "(c) A. M.", "Night")
        assert first[315].encode("latin-1", "ignore").decode("utf-8", "ignore") == "Änne Müller" or first[315] == "Änne Müller"
        assert (exif[42036], exif[42033], exif[37521], exif[36881]) == ("Sonnar T* 55mm", "0042", "57", "+09:00")
        assert (exif[37383], exif[37385], float(exif[37380]), float(exif[33437])) == (5, 24, pytest.approx(-2 / 3), pytest.approx(1.8))
        assert (gps[1], gps[3]) == ("S", "E")
        assert tuple(map(float, gps[2])) == pytest.approx(POSITION)
    assert b'xmp:Rating="4"' in path.read_bytes()
    assert (b'tiff:Orientation="6"' in path.read_bytes()) == (kind == "dng")


def test_a_file_of_ours_tells_the_same_again(tmp_path):
    frame = raw(tmp_path / "a.tif")
    first = read_metadata(tmp_path / "a.tif", frame)
    written("dng", tmp_path / "b.dng", first, frame)
    second = read_metadata(tmp_path / "b.dng", frame)
    assert (dict(second.exif), dict(second.gps), second.xmp, second.lost) == (dict(first.exif), dict(first.gps), first.xmp, ())


def test_both_byte_orders_mean_the_same(tmp_path):
    values = {
        271: (2, 5, b"Acme\0"),
        272: (2, 4, b"One\0"),
        33437: (5, 1, struct.pack(">II", 28, 10)),
        37380: (10, 1, struct.pack(">ii", -1, 3)),
    }
    entries, body, at = b"", b"", 8 + 2 + 12 * (len(values) + 1) + 4
    for number, (kind, count, data) in sorted((values | {34665: (4, 1, b"")}).items()):
        place = struct.pack(">I", at + len(body)) if data else struct.pack(">I", 8)
        entries += struct.pack(">HHI", number, kind, count) + place
        body += data
    main = struct.pack(">H", len(values) + 1) + entries + bytes(4) + body
    exif = struct.pack(">HHHI", 1, 37380, 10, 1) + struct.pack(">I", 8 + len(main) + 18) + bytes(4) + struct.pack(">ii", -1, 3)
    main = main.replace(struct.pack(">HHII", 34665, 4, 1, 8), struct.pack(">HHII", 34665, 4, 1, 8 + len(main)))
    (tmp_path / "a.tif").write_bytes(b"MM\0*" + struct.pack(">I", 8) + main + exif)
    carried = read_metadata(tmp_path / "a.tif", make_frame(np.random.default_rng(0)))
    assert struct.unpack("<ii", carried.exif[37380].data) == (-1, 3)


@pytest.mark.parametrize(
    ("position", "reason"),
    [
        ([fractions(2, [400, 0, 0], 100)], "latitude of its GPS position cannot be"),
        ([Entry(2, 5, 3, struct.pack("<6I", 1, 0, 2, 0, 3, 0))], "latitude of its GPS position cannot be"),
        ([text(1, "?")], "latitude of its GPS position is torn"),
        ([text(4, "151 E")], "longitude of its GPS position is torn"),
    ],
)
def test_a_position_that_cannot_be_is_left_out_and_told(tmp_path, position, reason):
    frame = raw(tmp_path / "a.tif", gps=[*GPS, *position])
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert [lost for lost in carried.lost if reason in lost]
    assert dict(carried.gps) == {}
    assert carried.exif[42033].data == b"0042\0"


@pytest.mark.parametrize(("xmp", "reason"), [(b"<x:xmpmeta", "it is no XML"), (b"<html/>", "it begins with html"), (b"x" * (1 << 20), "")])
def test_an_xmp_that_is_none_is_left_out_and_told(tmp_path, xmp, reason):
    frame = raw(tmp_path / "a.tif", xmp=xmp)
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert carried.xmp == b""
    assert [lost for lost in carried.lost if "XMP" in lost and reason in lost]


def test_a_sidecar_counts_more_and_a_broken_one_is_told(tmp_path):
    frame = raw(tmp_path / "a.tif")
    (tmp_path / "a.tif.xmp").write_bytes(XMP.replace(b'Rating="4"', b'Rating="1"'))
    assert b'Rating="1"' in read_metadata(tmp_path / "a.tif", frame).xmp
    steps = b'<darktable:history><rdf:Seq><rdf:li darktable:num="0"/></rdf:Seq></darktable:history>'
    attributes = b'darktable:xmp_version="5" xmp:Rating="2">'
    described = XMP.replace(b'tiff:Orientation="6" xmp:Rating="4"/>', attributes + steps + b"</rdf:Description>")
    described = described.replace(b"<rdf:Description ", b'<rdf:Description xmlns:darktable="http://darktable.sf.net/" ')
    (tmp_path / "a.tif.xmp").write_bytes(described)
    without = read_metadata(tmp_path / "a.tif", frame).xmp
    assert b'xmp:Rating="2"' in without
    assert not [word for word in (b"history", b"num=", b"xmp_version") if word in without]
    (tmp_path / "a.tif.xmp").write_bytes(b"<broken")
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert b'Rating="4"' in carried.xmp
    assert "the XMP of a.tif.xmp" in carried.lost[0]


def test_large_maker_notes_and_torn_values_cost_only_themselves(tmp_path):
    notes = Entry(37500, 7, 5_000_000, bytes(5_000_000))
    frame = raw(tmp_path / "a.tif", exif=[notes, Entry(37510, 7, 100_000, bytes(100_000))], gps=[])
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert {37500, 37510}.isdisjoint(carried.exif)
    assert carried.exif[42036].data == b"Sonnar T* 55mm\0"
    assert "tag 37510 of its EXIF directory, 100000 bytes" in carried.lost
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: -(5_000_000 + 100_000)])
    torn = read_metadata(tmp_path / "a.tif", frame)
    assert [lost for lost in torn.lost if "lie beyond the end of the file" in lost]
    written("jpg", tmp_path / "b.jpg", torn, frame)
    assert Image.open(tmp_path / "b.jpg").getexif()[315]


def test_maker_notes_go_into_the_dng_with_the_place_that_their_offsets_count_from(tmp_path):
    notes = b"Acme\0" + bytes(range(200))
    frame = raw(tmp_path / "a.tif", exif=[Entry(MAKER_NOTE, 7, len(notes), notes)])
    carried = read_metadata(tmp_path / "a.tif", frame)
    assert carried.lost == (NOTES_IN_DNG,)
    at = (tmp_path / "a.tif").read_bytes().index(notes)
    kept = b"Adobe\0MakN" + struct.pack(">I", 6 + len(notes)) + b"II" + struct.pack(">I", at) + notes
    assert carried.notes[DNG_PRIVATE].data == kept
    for kind in ("dng", "jpg"):
        written(kind, tmp_path / f"b.{kind}", carried, frame)
        assert (kept in (tmp_path / f"b.{kind}").read_bytes()) == (kind == "dng")
    again = read_metadata(tmp_path / "b.dng", frame)
    assert (again.notes[DNG_PRIVATE].data, again.lost) == (kept, ())


def test_of_a_dng_notes_are_kept_as_it_allows(tmp_path):
    note, private = Entry(MAKER_NOTE, 7, 5, b"notes", 90), Entry(DNG_PRIVATE, 1, 4, b"Acme")
    safe, unsafe, dng = short(NOTE_SAFETY, 1), short(NOTE_SAFETY, 0), Entry(DNG_VERSION, 1, 4, bytes(4))
    assert kept_in_dng(numbered([dng, private, safe]), numbered([note]), "<") == numbered([private, note, safe])
    assert kept_in_dng(numbered([dng, private, unsafe]), numbered([note]), "<") == numbered([private])
    assert kept_in_dng(numbered([dng, private]), {}, "<") == numbered([private])
    large = [(DNG_VERSION, "B", 4, bytes((1, 4, 0, 0)), True), (DNG_PRIVATE, "B", 2_000_000, bytes(2_000_000), True)]
    tifffile.imwrite(tmp_path / "a.dng", np.zeros((64, 64), np.uint16), extratags=large, metadata=None)
    assert read_metadata(tmp_path / "a.dng", make_frame(np.random.default_rng(0))).lost == (NOTES,)
    for main in ([dng], [private]):  # another raw means something else by that number
        (kept,) = kept_in_dng(numbered(main), numbered([note]), ">").values()
        assert kept.data == b"Adobe\0MakN" + struct.pack(">I", 11) + b"MM" + struct.pack(">I", 90) + b"notes"


def test_keywords_of_iptc_stand_where_readers_of_jpeg_look(tmp_path):
    """Dataset 2:25 of the first record (IPTC-IIM 4.2)."""
    word = Entry(33723, 7, 8, b"\x1c\x02\x19\x00\x03sea")
    metadata = Metadata(numbered([*MAIN, word]), numbered(EXIF), {})
    ImageDataset(filepath=str(tmp_path / "a.jpg")).save(Picture(np.zeros((3, 16, 16), np.float32), metadata))
    with Image.open(tmp_path / "a.jpg") as picture:
        assert IptcImagePlugin.getiptcinfo(picture) == {(2, 25): b"sea"}
        assert picture.getexif()[33432] == "(c) A. M."


def test_what_does_not_fit_into_a_jpeg_goes_by_length_and_is_told(tmp_path):
    long = [Entry(60000 + n, 7, 30_000, bytes(30_000)) for n in range(4)]
    xmp = XMP.replace(b"</rdf:RDF>", b" " * 65_000 + b"</rdf:RDF>")
    metadata = Metadata(numbered(MAIN), numbered([*EXIF, *long]), numbered(GPS), xmp)
    assert len(blob(metadata)) <= 65_000
    told = left_out_of_jpeg(metadata)
    assert [words.split(",")[0] for words in told[:2]] == ["tag 60000 of its EXIF directory", "tag 60001 of its EXIF directory"]
    assert told[2:] == [f"its XMP of {len(xmp)} bytes, which no JPEG holds"]
    assert left_out_of_jpeg(Metadata(numbered(MAIN), numbered(EXIF), numbered(GPS), XMP)) == []
    for kind in ("jpg", "png", "tif"):
        ImageDataset(filepath=str(tmp_path / f"a.{kind}")).save(Picture(np.zeros((3, 16, 16), np.float32), metadata))
        assert (b'xmp:Rating="4"' in (tmp_path / f"a.{kind}").read_bytes()) == (kind != "jpg")
    exif = Image.Exif()
    exif.load(blob(metadata))
    assert exif.get_ifd(34665)[42033] == "0042"
    assert exif.get_ifd(34853)[1] == "S"


@pytest.mark.skipif(not (SHARED / "raw_faults").is_dir(), reason="no raw_faults folder in LOWLIGHT_TEST_DATA")
def test_canons_own_formats_are_read():
    header = read_header(SHARED / "raw_faults/Canon_PowerShot_S40_CRW_0117.CRW")
    assert header["camera"] == "Canon PowerShot S40"
    tags = read_tags(SHARED / "raw_faults/canon-r6.cr3")
    assert (tags.camera, tags.iso, tags.taken_at) == ("Canon EOS R6", 25600, "2025-09-06T20:24:47")
    carried = read_metadata(SHARED / "raw_faults/canon-r6.cr3", make_frame(np.random.default_rng(0)))
    assert carried.exif[42036].data == b"EF100mm f/2.8L Macro IS USM\0"
    assert carried.exif[42033].data.rstrip(b"\0").isdigit()
    assert carried.notes[DNG_PRIVATE].data[14:20] == b"II" + struct.pack(">I", 8)  # of a TIFF structure of their own
    assert b"EF100mm f/2.8L Macro IS USM" in carried.notes[DNG_PRIVATE].data
    assert read_metadata(SHARED / "raw_faults/Canon_PowerShot_S40_CRW_0117.CRW", make_frame(np.random.default_rng(0))).lost == (NOTES,)


def test_a_packet_is_read_in_time_that_grows_as_it_does():
    """Editors leave room behind a packet; a pattern that began anew at every blank of it took seconds."""
    steps, room = b'darktable:history="no"', b" " * 900_000
    packet = b'<rdf:RDF xmlns:rdf="r" xmlns:darktable="d"><rdf:Description %b a="b"/>%b</rdf:RDF>'
    assert whole_packet(packet % (steps, room)) == PACKET % (packet % (b"", room))


def test_a_sidecar_is_wrapped_as_a_packet_once():
    packet = whole_packet(b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\n' + XMP)
    assert packet == PACKET % XMP
    assert whole_packet(packet) == packet


def test_a_minolta_keeps_its_tiff_in_a_block(tmp_path):
    body = struct.pack(">HHHI4s", 1, 271, 2, 4, b"Min\0") + bytes(4)
    blocks = (
        struct.pack(">4sI", b"\0PRD", 4) + bytes(4) + struct.pack(">4sI", b"\0TTW", 8 + len(body)) + b"MM\0*" + struct.pack(">I", 8) + body
    )
    (tmp_path / "a.mrw").write_bytes(b"\0MRM" + struct.pack(">I", len(blocks)) + blocks)
    assert read_tags(tmp_path / "a.mrw").camera == "Min"


def test_a_sigma_tells_its_name_in_its_jpeg_or_its_properties(tmp_path):
    told = {"ISO": "100", "CAMMANUF": "SIGMA", "CAMMODEL": "SD10"}
    (tmp_path / "a.x3f").write_bytes(x3f(told))
    assert read_tags(tmp_path / "a.x3f").camera == "SIGMA SD10"
    picture = io.BytesIO()
    Image.new("RGB", (16, 16)).save(picture, "jpeg", exif=blob(Metadata(numbered([text(271, "SIGMA"), text(272, "SIGMA DP2")]), {}, {})))
    (tmp_path / "b.x3f").write_bytes(x3f(told, picture.getvalue()))
    assert read_tags(tmp_path / "b.x3f").camera == "SIGMA DP2"
    (tmp_path / "c.x3f").write_bytes(x3f(told)[:-9])
    assert read_tags(tmp_path / "c.x3f").camera == UNKNOWN_CAMERA


def test_cameras_without_a_name_share_no_calibration():
    entry = {"iso": 100, "method": "flats", "verdict": "good"}
    values, told = noise_from_calibrations(UNKNOWN_CAMERA, 100, [{"camera": UNKNOWN_CAMERA, "entries": [entry]}], "good")
    assert (values, told) == (None, "good calibrations: the file does not name its camera")


def test_a_linear_profile_shows_what_the_matrix_shows(rng):
    """Little CMS takes linear camera RGB to sRGB as the renderer does."""
    matrix = camera_to_srgb(np.array([[0.7309, -0.1403, -0.0519], [-0.8474, 1.6008, 0.2622], [-0.2433, 0.2826, 0.8064]]))
    light = rng.uniform(0.1, 0.5, (16, 16, 3))
    profiles = [ImageCms.ImageCmsProfile(io.BytesIO(profile)) for profile in (linear_profile(matrix), srgb_profile())]
    pixels = Image.fromarray(np.rint(255 * light).astype(np.uint8))
    shown = np.asarray(ImageCms.profileToProfile(pixels, *profiles, outputMode="RGB")) / 255
    linear = np.rint(255 * light) / 255 @ matrix.astype(float).T
    expected = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055).clip(0, 1)
    assert np.abs(shown - expected).max() < 0.012
    assert "Linear camera RGB" in ImageCms.getProfileDescription(profiles[0])


def test_what_a_mosaic_of_ours_says_is_read(tmp_path, rng):
    write_dng(tmp_path / "a.dng", make_frame(rng, shape=(64, 64)), taken_at="2024-02-29T23:59:59")
    carried = read_metadata(tmp_path / "a.dng", make_frame(rng))
    assert carried.exif[36867].data == b"2024:02:29 23:59:59\0"
