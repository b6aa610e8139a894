"""The catalogue of secrets that can be told by their form (CX-62..CX-69), as data."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleet.redaction.secret_values import is_placeholder, looks_random

KINDS = (
    *("PRIVATE_KEY", "URL_CREDENTIALS", "AWS", "GITHUB", "GITLAB", "SLACK", "PROVIDER", "JWT"),
    *("AUTH_HEADER", "KEY_VALUE", "HIGH_ENTROPY"),
)
"""Every class of the catalogue; where two meet, the place has the name of the first (CX-61)."""


@dataclass(frozen=True, slots=True)
class SecretPattern:
    """One form of secret: looked for where one of its anchors stands, never across a line break.

    Attributes:
        anchors: texts with which the expression begins; the expression is tried nowhere else.
        expression: the secret is its group `secret`, or all of it.
        check: a last look at the secret: checksum, header, randomness.
        any_case: the anchors are in lower case and stand for every case.
    """

    kind: str
    anchors: tuple[str, ...]
    expression: re.Pattern[str]
    check: Callable[[str], bool] | None = None
    any_case: bool = False


_RUN = re.compile(r"[\w.~+/%=-]{8,}")
_NAME = re.compile(r"[a-z]+(?:-[a-z]+)+-?[a-z]*\d{0,3}\Z")
_NOTATION = re.compile(r"(?i)(?:user(?:name)?|login|name|usr):(?:pass(?:word|wd)?|pwd|pw)\Z")


def _has_alg(token: str) -> bool:
    head = token.split(".", 1)[0]
    try:
        header = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    except (ValueError, binascii.Error):
        return False
    return isinstance(header, dict) and "alg" in header


def _is_basic(token: str) -> bool:
    try:
        return b":" in base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except (ValueError, binascii.Error):
        return False


def _is_credential(value: str) -> bool:
    """Whether the value of a header is a credential and not a word about one."""
    return not is_placeholder(value) and any(
        any(c.isdigit() for c in run) and not _NAME.match(run) for run in _RUN.findall(value)
    )


def _is_cookie(value: str) -> bool:
    """Whether a cookie holds a session and not a setting: a value of eight or more characters with a digit."""
    values = (part.partition("=")[2].strip() for part in value.split(";") if "expires" not in part.lower())
    return any(_is_credential(v) for v in values)


def _is_user_info(value: str) -> bool:
    user, colon, password = value.partition(":")
    # `user:password` is how documents write that user and password stand here.
    if is_placeholder(value) or _NOTATION.match(value):
        return False
    return len(password) >= 3 if colon else len(user) >= 16 and looks_random(user)


def _pattern(
    kind: str, anchors: str, expression: str, check: Callable[[str], bool] | None = None, *, any_case: bool = False
) -> SecretPattern:
    flags = re.IGNORECASE if any_case else 0
    return SecretPattern(kind, tuple(anchors.split()), re.compile(expression, flags), check, any_case)


_AFTER_ESCAPE = r"(?<=\\[nrt])"
"""Of `\\nTOKEN` within a string the letter belongs to the line break."""
_NO_WORD = rf"(?:(?<![A-Za-z0-9_])|{_AFTER_ESCAPE})"
_ALONE = rf"(?:(?<![A-Za-z0-9_-])|{_AFTER_ESCAPE})"
_OPEN = r"(?:[bf]?\\{0,8}[\"'`])"
_SEPARATOR = r"(?:\\{0,8}[\"'`])?\]?[ \t]{0,4}(?:=>|[:=,])[ \t]{0,4}" + _OPEN + "?"
_HEADER = (
    r"(?:(?:\\{0,8}[\"'`])\]?[ \t]{0,4}(?:,|=>?)[ \t]{0,4}"
    + _OPEN
    + r"|(?:\\{0,8}[\"'`])?[ \t]{0,4}:[ \t]{0,4}"
    + _OPEN
    + "?)"
)
"""Between the name of a header and its value: as it is sent, as JSON, as an item or an argument of a program."""

_END = r"(?![A-Za-z0-9])"
PROVIDER_FORMS: Sequence[tuple[str, str]] = (
    ("PMAK-", r"[A-Fa-f0-9]{24}-[A-Fa-f0-9]{34}"),
    ("rubygems_", r"[a-f0-9]{48}"),
    ("dt0c01.", r"[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    ("NRAK-", r"[A-Z0-9]{27}"),
    ("NRJS-", r"[a-f0-9]{19}"),
    ("sntryu_", r"[a-f0-9]{64}"),
    ("pul-", r"[a-f0-9]{40}"),
    ("FLWSECK_TEST-", r"[A-Ha-h0-9]{32}-X"),
    ("duffel_live_", r"[A-Za-z0-9_=-]{43}"),
    ("duffel_test_", r"[A-Za-z0-9_=-]{43}"),
    ("shippo_live_", r"[A-Fa-f0-9]{40}"),
    ("shippo_test_", r"[A-Fa-f0-9]{40}"),
    ("pnu_", r"[A-Za-z0-9]{36}"),
    ("rdme_", r"[a-z0-9]{70}"),
    ("dp.pt.", r"[A-Za-z0-9]{43}"),
    ("LTAI", r"[A-Za-z0-9]{20}"),
    ("CLOJARS_", r"[A-Za-z0-9]{60}"),
    ("sgp_", r"(?:[A-Fa-f0-9]{16}_|local_)?[A-Fa-f0-9]{40}"),
    ("sq0atp-", r"[A-Za-z0-9_-]{22,60}"),
    ("ntn_", r"[0-9]{11}[A-Za-z0-9]{35}"),
    ("bkua_", r"[a-f0-9]{40}"),
    ("aio_", r"[A-Za-z0-9]{28}"),
    ("key-", r"[a-f0-9]{32}"),
    ("SK", r"[0-9a-fA-F]{32}"),
    ("sm_pat_", r"[A-Za-z0-9]{16}"),
    ("dnkey-", r"[a-z0-9=_-]{26}-[a-z0-9=_-]{52}"),
    ("v1.0-", r"[a-f0-9]{24}-[a-f0-9]{146}"),
)
"""What a token of a provider begins with, and the rest of it. Source: the forms that the rules of gitleaks (MIT) know
and that nothing else here finds."""

SECRET_PATTERNS: Sequence[SecretPattern] = (
    _pattern("PRIVATE_KEY", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{20,}"),
    _pattern(
        "URL_CREDENTIALS",
        "://",
        r"(?<=[A-Za-z0-9])://(?P<secret>[^\s/@?#\"'`\\{}<>()\[\]$|,]{1,512})@(?=[\w\[.$-])",
        _is_user_info,
    ),
    _pattern("AWS", "AKIA ASIA AGPA AROA", _NO_WORD + r"(?:AKIA|ASIA|AGPA|AROA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    _pattern(
        "AWS",
        "secret_access_key secretaccesskey secret-access-key aws_secret session_token sessiontoken session-token",
        r"(?:secret[_-]?access[_-]?key|aws_secret(?:_key)?|session[_-]?token)"
        + _SEPARATOR
        + r"(?P<secret>[A-Za-z0-9/+=]{40,4096})(?![A-Za-z0-9/+=])",
        looks_random,
        any_case=True,
    ),
    _pattern("GITHUB", "ghp_ gho_ ghu_ ghs_ ghr_", _NO_WORD + r"gh[pousr]_[A-Za-z0-9]{36,}"),
    _pattern("GITHUB", "github_pat_", _NO_WORD + r"github_pat_[A-Za-z0-9_]{22,}"),
    _pattern(
        "GITLAB",
        "glpat- gldt- glrt- glcbt- glptt- glft- gloas- glagent- glsoat- glimt-",
        _ALONE + r"gl(?:pat|dt|rt|cbt|ptt|ft|oas|agent|soat|imt)-[A-Za-z0-9_.-]{20,}",
    ),
    _pattern("GITLAB", "GR1348941", _NO_WORD + r"GR1348941[A-Za-z0-9_-]{20,}"),
    _pattern("SLACK", "xox", _ALONE + r"xox[abeoprs]-[A-Za-z0-9-]{10,}", lambda s: any(c.isdigit() for c in s)),
    _pattern("SLACK", "xapp-", _ALONE + r"xapp-[A-Za-z0-9-]{10,}", lambda s: any(c.isdigit() for c in s)),
    _pattern(
        "SLACK", "hooks.slack.com/", r"hooks\.slack\.com/(?P<secret>(?:services|workflows|triggers)/[A-Za-z0-9/_-]{8,})"
    ),
    _pattern("PROVIDER", "sk-", _ALONE + r"sk-(?:ant-|proj-|svcacct-|or-v1-|lf-)?[A-Za-z0-9_-]{20,}", looks_random),
    _pattern("PROVIDER", "hf_", _NO_WORD + r"hf_[A-Za-z0-9]{30,}", looks_random),
    _pattern("PROVIDER", "AIza", _ALONE + r"AIza[A-Za-z0-9_-]{35}"),
    _pattern("PROVIDER", "npm_", _NO_WORD + r"npm_[A-Za-z0-9]{36}(?![A-Za-z0-9_])", looks_random),
    _pattern("PROVIDER", "pypi-", _ALONE + r"pypi-[A-Za-z0-9_-]{50,}", looks_random),
    _pattern("PROVIDER", "dop_v1_ doo_v1_ dor_v1_", _NO_WORD + r"do[opr]_v1_[a-f0-9]{64}"),
    _pattern("PROVIDER", "SG.", _ALONE + r"SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}", looks_random),
    _pattern("PROVIDER", "sk_live_ rk_live_ sk_test_ rk_test_", _NO_WORD + r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"),
    _pattern("PROVIDER", "whsec_", _NO_WORD + r"whsec_[A-Za-z0-9+/=]{24,}", looks_random),
    _pattern("PROVIDER", "shpat_ shpss_ shpca_ shppa_", _NO_WORD + r"shp(?:at|ss|ca|pa)_[a-fA-F0-9]{32,}"),
    _pattern("PROVIDER", "ya29.", _ALONE + r"ya29\.[A-Za-z0-9_-]{20,}", looks_random),
    _pattern("PROVIDER", "xkeysib-", _ALONE + r"xkeysib-[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    _pattern(
        "PROVIDER",
        "lin_api_ glsa_ gsk_ nvapi- tvly- pplx-",
        _ALONE + r"(?:lin_api_|glsa_|gsk_|nvapi-|tvly-|pplx-)[A-Za-z0-9_-]{24,}",
        looks_random,
    ),
    _pattern("PROVIDER", "hvs. hvb.", _ALONE + r"hv[sb]\.[A-Za-z0-9_-]{24,}", looks_random),
    _pattern("PROVIDER", "dapi", _NO_WORD + r"dapi[a-f0-9]{32}(?![A-Za-z0-9])"),
    _pattern("PROVIDER", ".atlasv1.", r"(?<=[a-z0-9]{14})\.atlasv1\.[A-Za-z0-9_=-]{60,70}" + _END),
    *(_pattern("PROVIDER", start, _ALONE + re.escape(start) + rest + _END) for start, rest in PROVIDER_FORMS),
    _pattern(
        "JWT",
        "eyJ eyA ewo",
        _ALONE + r"ey?[JAw][A-Za-z0-9_-]{8,8192}\.[A-Za-z0-9_-]{2,16384}\.[A-Za-z0-9_-]{0,4096}",
        _has_alg,
    ),
    _pattern(
        "AUTH_HEADER",
        "authorization x-api-key x-auth-token",
        r"(?:authorization|x-api-key|x-auth-token)"
        + _HEADER
        + r"(?:(?:bearer|basic|token|digest|negotiate|apikey)[ \t]+)?"
        + r"(?P<secret>[^\s\"'`\\,;<>{}()\[\]][^\"'`\\\r\n<>{}()\[\]]{0,8192}+)(?!\()",
        _is_credential,
        any_case=True,
    ),
    _pattern(
        "AUTH_HEADER",
        "cookie",
        r"cookie" + _HEADER + r"(?P<secret>[\w.-]{1,100}=[^\"'`\\\r\n<>{}()\[\]]{1,8192})",
        _is_cookie,
        any_case=True,
    ),
    _pattern(
        "AUTH_HEADER",
        "bearer",
        _NO_WORD + r"bearer[ \t]+(?P<secret>[A-Za-z0-9._~+/-]{12,8192}={0,2})",
        _is_credential,
        any_case=True,
    ),
    _pattern(
        "AUTH_HEADER",
        "basic",
        _NO_WORD + r"basic[ \t]+(?P<secret>[A-Za-z0-9+/]{8,8192}={0,2})",
        _is_basic,
        any_case=True,
    ),
)
