"""What error messages have in common."""


def short(value: object) -> str:
    """A value as text, of which a long one loses its middle."""
    text = str(value)
    return text if len(text) <= 300 else f"{text[:200]} … {text[-50:]}"
