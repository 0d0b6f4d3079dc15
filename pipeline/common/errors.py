"""Errors that nobody foresaw."""


def unforeseen(error: Exception) -> str:
    """What is said of an error that nobody foresaw."""
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}; nothing that was there is lost"
    reason = " ".join(str(error).split())
    return f"unexpected {type(error).__name__}: {reason}; --debug shows where, please report it"
