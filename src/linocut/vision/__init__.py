"""The segmenter: encode an image once, answer prompts about it, find everything in it.

From the bottom up: ``efficientnet``, ``layers``, ``encoder`` (image to features, octave by octave), ``windows`` (where
the decoder looks), ``decoder``, ``prompts``, ``network`` (the two looks), ``masks``, ``segmenter``, ``session``,
``suppress``, ``options``, ``everything``, ``weights``, ``frames`` and ``sam`` (Segment Anything's interface).
"""
