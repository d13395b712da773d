"""From a video source to model input: decoding, frame sampling, transforms, and the processor that joins them."""
