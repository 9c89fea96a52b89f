"""Trained detectors behind HTTP: ``nullscope serve``. Nothing of an image or its name is stored or logged."""
