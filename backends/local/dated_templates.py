"""Chat templates that write today's date, held to one day.

transformers gives templates a function `strftime_now` and lets nobody put another in its place: a function
handed to `apply_chat_template` reaches the template as text. A macro of that name comes before it.
"""

from datetime import date, datetime, time
from functools import lru_cache

_FUNCTION = "strftime_now"
_DIRECTIVES = "aAbBcCdDeFgGhHIjmMnprRStTuUVwWxXyYzZ"
_FLAGS = ("", "-", "0", "_", "^")


def is_dated(template: str) -> bool:
    """Whether what the template writes may depend on the day."""
    return _FUNCTION in template


@lru_cache
def of_day(template: str, day: date) -> str:
    """The template with `strftime_now` telling of that day's first moment; others unchanged.

    It knows C's directives (strftime(3)) with glibc's flags, and Python's names of days and months.
    """
    if not is_dated(template):
        return template
    moment = datetime.combine(day, time())
    # A "%%" is neither a directive's beginning nor its end.
    pieces = "format.split('%%')"
    told = "".join(
        f"|replace({written!r}, {moment.strftime(written)!r})"
        for directive in _DIRECTIVES
        for flag in _FLAGS
        if (written := f"%{flag}{directive}")
    )
    # The empty text keeps the template's own first newline, which would go with the macro's end.
    return (
        f"{{%- macro {_FUNCTION}(format) -%}}{{%- for piece in {pieces} -%}}"
        f"{{{{- '' if loop.first else '%' -}}}}{{{{- piece{told} -}}}}"
        f"{{%- endfor -%}}{{%- endmacro -%}}{{{{ '' }}}}{template}"
    )
