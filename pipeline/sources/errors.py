"""What goes wrong with a source as a whole. Each message is meant for the person who runs the workflow."""


class SourceError(Exception):
    """The source cannot be listed or read: a missing folder or category, the wrong version, a lost disk."""


class ArchiveError(SourceError):
    """A file is not an archive that can be read; the message says what it is instead."""


class SplitError(SourceError):
    """Split lists contradict themselves or cannot be read."""


class DownloadError(SourceError):
    """A file could not be fetched."""
