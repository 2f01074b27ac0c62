"""The ``mlcore`` command: thin verbs over the public API. Nothing is decided here but how things are shown."""
