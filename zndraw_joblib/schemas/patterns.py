"""The work of a schema's regular expressions, and the reasons to refuse one.

The engine translates ECMA patterns and runs them in linear time, except for look-around, which
backtracks up to a limit; each step back may read the rest of the text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from jsonschema_rs import FancyRegexOptions

from zndraw_joblib.text import Message

#: Steps back that one match of a pattern with look-around may take, 0.1 ms.
BACKTRACK_LIMIT = 500
#: The engine's limits for a pattern; the sizes are bytes of one automaton.
OPTIONS = FancyRegexOptions(
    backtrack_limit=BACKTRACK_LIMIT, size_limit=250_000, dfa_size_limit=1_000_000
)
#: Most states of all patterns of a schema, which take about 0.1 s to compile.
MAX_STATES = 50_000

_TOKEN = re.compile(
    r"\\[pP]\{[^}]*\}|\\.|\[(?:\\.|[^\]\\])*\]|\{(\d+)(?:,(\d*))?\}|\(\?(?:i\)|i?:|<[=!]|<\w+>|[=!])?|.",
    re.DOTALL,
)
#: Unicode classes have hundreds of states; any other set of characters has a few.
_STATES = {"\\p": 200, "\\P": 200, "[": 5, ".": 5}
_LOOK_AROUND = ("(?=", "(?!", "(?<=", "(?<!")


class Pattern(NamedTuple):
    """The size of a pattern, or the reason to refuse it, which ends a sentence: "has a group"."""

    states: int = 0
    look_arounds: int = 0
    error: str | None = None


def measure(text: str) -> Pattern:
    """Estimate the states of a pattern from its text; groups within repeats multiply.

    A look-around within another one is refused, and so are possessive repeats and back-references,
    because the engine does not count their steps back.
    """
    #: For each open group its states without its last token, the states of that, and 1 for a
    #: look-around.
    groups: list[list[int]] = [[0, 0, 0]]
    look_arounds = 0
    previous = ""
    for match in _TOKEN.finditer(text):
        token = match.group()
        group = groups[-1]
        if token == "(?":
            return Pattern(error=Message("has a group that is not supported"))
        if token == "(?i)":
            continue
        if token.startswith("("):
            inside = token in _LOOK_AROUND
            if inside and any(is_look_around for _, _, is_look_around in groups):
                return Pattern(error=Message("has a look-around within a look-around"))
            look_arounds += inside
            groups.append([0, 0, int(inside)])
        elif token == ")" and len(groups) > 1:
            groups.pop()
            outer = groups[-1]
            outer[0] += outer[1]
            outer[1] = group[0] + group[1]
        elif match.group(1):
            group[1] *= max(1, int((match.group(2) or match.group(1))[:9]))
        elif token == "+" and previous in ("*", "+", "?", "}"):
            return Pattern(error=Message("has a possessive repeat"))
        elif token not in ("*", "+", "?", "|"):
            group[0] += group[1]
            group[1] = _STATES.get(token[:2], _STATES.get(token[:1], 1))
        previous = token[-1:] if token[0] in "*+?{" else ""
    states = sum(total + last for total, last, _ in groups) + 1
    if re.search(r"\\[1-9k]", re.sub(r"\\\\", "", text)):
        return Pattern(error=Message("has a back-reference"))
    return Pattern(states, look_arounds)
