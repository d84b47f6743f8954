"""Data in and out: images of any size, masks in every common form, packs of labelled images.

NumPy arrays go in and come out; nothing here knows of models. Each file stands alone, so that reading a mask does not
load an image library: import from the file, as in ``from linocut.data.rle import encode_rle``.
"""
