"""All formats by their names in tasks/vision/published/sets.yaml."""

from tasks.vision.published.formats import arrays, files, objectnet, webdataset

FORMATS = {**arrays.FORMATS, **files.FORMATS, "objectnet": objectnet.FORMAT, "webdataset": webdataset.FORMAT}
