"""Events: the envelope, one module per family of the catalogue, codec, upcasters."""
