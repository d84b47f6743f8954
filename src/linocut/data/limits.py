"""The size from which an image is refused unless it is asked for, known without loading an image library.

Importing this loads nothing, so that the command line can show the default without waiting for it.
"""

DEFAULT_MAX_PIXELS = 200_000_000
"""An image of more pixels is refused unless ``max_pixels`` is raised.

A file of a few kilobytes can claim any size, and what it costs comes after it is read: to encode an image takes about
50 bytes a pixel in bfloat16 and 85 in float32, so 10 to 17 GB at this limit.
"""
