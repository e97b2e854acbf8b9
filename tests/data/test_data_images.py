"""One file of each kind that docs/building-data.md lists, read by ImageLoader."""

import io
import struct
import warnings
import zlib

import keras
import numpy as np
import pytest
from PIL import Image

from keras_metric.data import ImageLoader
from keras_metric.data.images.jpeg_decoding import jpeg_shape

# No rotation or flip of the scene is equal to it.
SCENE = np.array([[250, 252, 254], [10, 100, 200], [20, 110, 210], [30, 120, 220]], "uint8")
COLORS = np.stack([SCENE, 255 - SCENE, SCENE // 2], axis=-1)
ORIENTATION = 0x0112
# How a camera stores an upright scene under each orientation of the EXIF standard, in NumPy.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a, -1),
}


def read(image, color_mode="rgb", format="PNG", size=None, **saving):
    file = io.BytesIO()
    image.save(file, format, **saving)
    return ImageLoader(size or SCENE.shape, color_mode)(file.getvalue())


def png(depth, kind, rows):
    """A PNG encoded by hand, since Pillow does not write RGB with 16 bits."""

    def chunk(name, data):
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    height, width = rows.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(data)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_orientation_is_applied(orientation, format):
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](COLORS)))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    saving = {"lossless": True} if format == "WEBP" else {}
    found = read(stored, format=format, exif=exif, **saving)
    np.testing.assert_array_equal(found, COLORS)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("shape", [(32, 24), (16, 12)])
def test_orientation_of_a_jpeg_one_by_one_and_at_once(orientation, shape):
    upright = np.kron(COLORS, np.ones((8, 8, 1))).astype("uint8")
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    file = io.BytesIO()
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    stored.save(file, "JPEG", exif=exif, quality=100, subsampling=0)
    loader = ImageLoader(shape, interpolation="nearest")
    found = loader(file.getvalue())
    expected = upright[:: 32 // shape[0], :: 24 // shape[1]]
    assert np.abs(found.astype(int) - expected).max() <= 12
    # Other decoders than Pillow ignore EXIF data, and so must not decode rotated files.
    assert jpeg_shape(file.getvalue()) == ((32, 24, 3) if orientation == 1 else None)


def test_orientation_in_xmp_alone():
    file = io.BytesIO()
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    stored = Image.fromarray(COLORS[::-1, ::-1].repeat(8, 0).repeat(8, 1))
    stored.save(file, "JPEG", xmp=xmp, quality=100, subsampling=0)
    found = ImageLoader((32, 24))(file.getvalue())
    assert np.abs(found[::8, ::8].astype(int) - COLORS).max() <= 12
    assert jpeg_shape(file.getvalue()) is None


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0garbage"]
)
def test_damaged_exif_is_ignored(exif):
    np.testing.assert_array_equal(read(Image.fromarray(COLORS), exif=exif), COLORS)


def test_16_bits_equal_the_same_image_in_8():
    # Both bytes of 257 v are v, the standard conversion from 8 to 16 bits.
    grey = SCENE.astype("uint16") * 257
    for color_mode in ("grayscale", "rgb", "rgba"):
        expected = read(Image.fromarray(SCENE), color_mode)
        for format in ("PNG", "TIFF"):
            np.testing.assert_array_equal(read(Image.fromarray(grey), color_mode, format), expected)
        pgm = b"P5 3 4 65535\n" + grey.astype(">u2").tobytes()
        np.testing.assert_array_equal(ImageLoader((4, 3), color_mode)(pgm), expected)
    rgb = COLORS.astype("uint16") * 257
    np.testing.assert_array_equal(ImageLoader((4, 3))(png(16, 2, rgb)), COLORS)
    with_alpha = np.stack([grey, np.full_like(grey, 65535)], axis=-1)
    found = ImageLoader((4, 3), "grayscale")(png(16, 4, with_alpha))
    np.testing.assert_array_equal(found[..., 0], SCENE)
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    turned = Image.fromarray(np.ascontiguousarray(grey[::-1, ::-1]))
    np.testing.assert_array_equal(read(turned, "grayscale", exif=exif)[..., 0], SCENE)


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_32_bits_are_refused(dtype):
    with pytest.raises(ValueError, match="32 bits a channel.*scale it"):
        read(Image.fromarray(SCENE.astype(dtype)), format="TIFF")


def test_palettes_and_black_and_white():
    # 12 colours fit into a palette without loss.
    palette = Image.fromarray(COLORS).convert("P", palette=Image.Palette.ADAPTIVE, colors=12)
    for format in ("PNG", "GIF", "TIFF"):
        np.testing.assert_array_equal(read(palette, format=format), COLORS)
    bits = Image.fromarray(SCENE > 128)
    np.testing.assert_array_equal(read(bits, "grayscale")[..., 0], 255 * (SCENE > 128))


def test_transparency_is_dropped_or_kept_without_a_warning():
    alpha = SCENE[::-1]
    rgba = Image.fromarray(np.concatenate([COLORS, alpha[..., None]], axis=-1))
    palette = Image.fromarray(COLORS).convert("P", palette=Image.Palette.ADAPTIVE, colors=12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read(rgba), COLORS)
        np.testing.assert_array_equal(read(rgba, "rgba")[..., 3], alpha)
        found = read(palette, transparency=bytes(range(0, 240, 20)))
        np.testing.assert_array_equal(found, COLORS)
        found = read(palette, "rgba", transparency=bytes(range(0, 240, 20)))
        assert sorted(found[..., 3].flat) == list(range(0, 240, 20))


def test_cmyk():
    # Without black ink, an ink of c is a colour of 255 - c.
    inks = np.concatenate([255 - COLORS, np.zeros((4, 3, 1), "uint8")], axis=-1)
    found = read(Image.fromarray(inks, mode="CMYK"), format="TIFF")
    np.testing.assert_array_equal(found, COLORS)
    large = Image.fromarray(inks.repeat(8, 0).repeat(8, 1), mode="CMYK")
    found = read(large, format="JPEG", size=(32, 24), quality=100, subsampling=0)
    assert np.abs(found[4::8, 4::8].astype(int) - COLORS).max() <= 8


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_image_of_several(format):
    first, second = Image.fromarray(SCENE), Image.fromarray(255 - SCENE)
    saving = {"save_all": True, "append_images": [second]}
    saving |= {"lossless": True} if format == "WEBP" else {}
    saving |= {"duration": 100} if format != "TIFF" else {}
    found = read(first, "grayscale", format, **saving)
    np.testing.assert_array_equal(found[..., 0], SCENE)


def test_an_unreadable_image_is_named_without_a_memory_address(tmp_path):
    file = io.BytesIO()
    Image.fromarray(COLORS.repeat(50, 0)).save(file, "PNG")
    path = tmp_path / "cut.png"
    for content in (b"", b"GIF89a", b"<svg/>", file.getvalue()[:-30]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="Could not read the image .*cut.png") as error:
            ImageLoader((4, 3))(path)
        assert "0x" not in str(error.value)
        with pytest.raises(ValueError, match=f"in {len(content)} bytes") as error:
            ImageLoader((4, 3))(content)
        assert "0x" not in str(error.value) and "BytesIO" not in str(error.value)


def test_formats_and_pixels_can_be_limited():
    file = io.BytesIO()
    Image.fromarray(COLORS).save(file, "GIF")
    with pytest.raises(ValueError, match="it is not PNG or JPEG"):
        ImageLoader((4, 3), formats=["PNG", "JPEG"])(file.getvalue())
    assert ImageLoader((4, 3), formats=["GIF"], max_pixels=12)(file.getvalue()).shape == (4, 3, 3)
    with pytest.raises(ValueError, match="3 x 4 pixels; at most 11 are"):
        ImageLoader((4, 3), max_pixels=11)(file.getvalue())
    for formats in (["NOPE"], []):
        with pytest.raises(ValueError, match="`formats` must be one of .*'PNG'"):
            ImageLoader((4, 3), formats=formats)
    for file in (None, 3, bytearray(b"x")):
        with pytest.raises(TypeError, match="must be a path or bytes"):
            ImageLoader((4, 3))(file)
    with pytest.raises(TypeError, match="`formats` must be None or a list"):
        ImageLoader((4, 3), formats="PNG")
    with pytest.raises((TypeError, ValueError), match="`max_pixels`"):
        ImageLoader((4, 3), max_pixels=0)


@pytest.mark.parametrize("keep_aspect_ratio", [False, True])
@pytest.mark.parametrize("color_mode", ["grayscale", "rgb", "rgba"])
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest", "bicubic", "lanczos", "box"])
def test_pixels_are_those_of_keras(tmp_path, keep_aspect_ratio, color_mode, interpolation):
    pixels = np.random.default_rng(0).integers(256, size=(37, 23, 3)).astype("uint8")
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for size in ((16, 16), (9, 40), (37, 23), (23, 9)):
        expected = keras.utils.img_to_array(
            keras.utils.load_img(
                tmp_path / "a.png",
                color_mode=color_mode,
                target_size=size,
                interpolation=interpolation,
                keep_aspect_ratio=keep_aspect_ratio,
            ),
            dtype="uint8",
        )
        loader = ImageLoader(size, color_mode, interpolation, keep_aspect_ratio)
        np.testing.assert_array_equal(loader(tmp_path / "a.png"), expected)
