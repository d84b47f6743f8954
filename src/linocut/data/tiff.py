"""Reading one page of a TIFF file.

tifffile reads what microscopes and satellites write: tiles, strips, planes, 16 bits, floating point, BigTIFF. Without
its optional codecs it cannot undo LZW, JPEG and fax compression; then OpenCV (colours of 16 bits and more, which Pillow
cuts to 8) or Pillow (all else) is asked.
"""

from __future__ import annotations

import logging
from typing import Any, BinaryIO

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from linocut.data.pixels import ImageError, Pixels, upright

# Every oddity in a file is logged by tifffile; what matters to the user comes as an ImageError instead.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ASSOCIATED, _UNASSOCIATED = 1, 2  # kinds of alpha, tag 338
_COLOURS = {"MINISBLACK": (1, 3), "MINISWHITE": (1,), "RGB": (3,), "PALETTE": (1,), "SEPARATED": (4,)}
