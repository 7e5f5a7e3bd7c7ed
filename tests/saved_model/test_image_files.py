"""Image files are read as the exported model sees them."""

import numpy as np
import pytest
from PIL import Image

from tfhuber.saved_model.image_files import decode_rgb, open_image, read_image


def test_of_16_bits_the_upper_ones_are_seen(tmp_path):
    grey = np.arange(0, 256, 5, np.uint8).reshape(4, 13)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "a.png")
    _, image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(np.asarray(image), grey[..., None].repeat(3, -1))
    decoded = decode_rgb((tmp_path / "a.png").read_bytes(), "a.png")
    np.testing.assert_array_equal(np.asarray(decoded), np.asarray(image))


@pytest.mark.parametrize(
    ("size", "fault"),
    [((9999, 10_000), None), ((10_001, 10_000), "has 10001 x 10000 pixels, more than 100,000,000")],
)
def test_pictures_may_be_as_large_as_the_model_allows(size, fault, tmp_path):
    Image.new("1", size).save(tmp_path / "a.png")
    if fault is None:
        assert open_image(tmp_path / "a.png")[1].size == size
    else:
        with pytest.raises(ValueError, match=fault):
            open_image(tmp_path / "a.png")
