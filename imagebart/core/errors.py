"""Errors whose message is shown as it is, and how values and other texts are shown."""

LONGEST_VALUE = 80  # characters of a value in a sentence
LONGEST_SENTENCE = 1000  # characters


class _Sentence(ValueError):
    """A sentence for people: cut where names in it, which may come from a file, are very long."""

    def __str__(self) -> str:
        return shortened(super().__str__(), LONGEST_SENTENCE)


class InputError(_Sentence):
    """Bad input. The message is one sentence for a person: what is wrong and what would be right."""


class WeightsError(_Sentence):
    """A model's files cannot be used. One sentence names the file, the reason and what would be right."""


def plain(text: str) -> str:
    """A text for a terminal: control characters, which could move its cursor, are escaped."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def whole_characters(text: str) -> str:
    """The text with � for each lone surrogate, which UTF-8 cannot hold."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def shortened(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def reason_of(error: BaseException) -> str:
    """What another library's error says, on one line, shortened; its type where it says nothing."""
    return shortened(" ".join(str(error).split()), 600) or type(error).__name__


def format_value(value: object) -> str:
    """A value for a sentence: numbers plainly, everything else as in Python; shortened."""
    try:
        text = f"{value:g}" if isinstance(value, float) else repr(value)
    except Exception:  # a number of more digits than Python writes, a broken __repr__
        text = f"a {type(value).__name__} that cannot be shown"
    return shortened(text, LONGEST_VALUE)
