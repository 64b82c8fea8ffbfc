"""Titles of problems that have no type of their own: the phrases of their HTTP statuses.

Not those of `http.client`, which differ between versions of Python and have no translations.
"""

from __future__ import annotations

from zndraw_joblib.text import Message

_PHRASES = {
    400: Message("Bad Request"),
    401: Message("Unauthorized"),
    402: Message("Payment Required"),
    403: Message("Forbidden"),
    404: Message("Not Found"),
    405: Message("Method Not Allowed"),
    406: Message("Not Acceptable"),
    407: Message("Proxy Authentication Required"),
    408: Message("Request Timeout"),
    409: Message("Conflict"),
    410: Message("Gone"),
    411: Message("Length Required"),
    412: Message("Precondition Failed"),
    413: Message("Content Too Large"),
    414: Message("URI Too Long"),
    415: Message("Unsupported Media Type"),
    416: Message("Range Not Satisfiable"),
    417: Message("Expectation Failed"),
    418: Message("I'm a Teapot"),
    421: Message("Misdirected Request"),
    422: Message("Unprocessable Content"),
    423: Message("Locked"),
    424: Message("Failed Dependency"),
    425: Message("Too Early"),
    426: Message("Upgrade Required"),
    428: Message("Precondition Required"),
    429: Message("Too Many Requests"),
    431: Message("Request Header Fields Too Large"),
    451: Message("Unavailable For Legal Reasons"),
    500: Message("Internal Server Error"),
    501: Message("Not Implemented"),
    502: Message("Bad Gateway"),
    503: Message("Service Unavailable"),
    504: Message("Gateway Timeout"),
    505: Message("HTTP Version Not Supported"),
    506: Message("Variant Also Negotiates"),
    507: Message("Insufficient Storage"),
    508: Message("Loop Detected"),
    510: Message("Not Extended"),
    511: Message("Network Authentication Required"),
}


def status_title(status: int) -> Message:
    """The phrase of an HTTP status, or its number if it has no phrase."""
    return _PHRASES.get(status) or Message("Status {status}", status=status)
