"""Functions on tensors, one file a recurrence; nothing here knows of layers or images."""
