"""What error messages have in common."""


def short(text: object) -> str:
    """A text, or the representation of a value, of which a long one loses its middle."""
    text = text if isinstance(text, str) else repr(text)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-50:]}"
