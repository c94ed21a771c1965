"""What error messages have in common."""


def short(value: object, longest: int = 300) -> str:
    """A value as text, of which a long one loses its middle."""
    text = str(value)
    return text if len(text) <= longest else f"{text[: longest - 53]} … {text[-50:]}"
