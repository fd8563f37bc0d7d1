"""Out of memory, as each backend says it."""

# TensorFlow and JAX name the condition, PyTorch writes its allocators' words.
_WORDS = ("RESOURCE_EXHAUSTED", "can't allocate memory", "out of memory", "OOM when allocating")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _WORDS)


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
